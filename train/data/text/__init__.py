"""Texts with classes and pairs of texts: files of one's own, real sets prepared once, and their tokens."""

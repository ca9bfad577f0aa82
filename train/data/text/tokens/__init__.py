"""Tokens of text: what makes them, and sequences of them."""

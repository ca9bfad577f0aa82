"""Evaluations of a run: when they are due, on which data sets, and what they find."""

"""Data worker processes, and how data sets and batches get to them and back."""

"""Examinations of GPUs."""

"""Samplers: which sample stands at which position of a run."""

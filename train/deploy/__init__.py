"""Evaluate a run that is not trained now, and export its model."""

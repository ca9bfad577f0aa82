"""Verbs for what is done with a trained model."""

"""Parallel strategies: how one model is distributed over the ranks."""

"""Phalanx trains PyTorch models on any number of ranks."""

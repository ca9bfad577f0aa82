"""Predictions: raw inputs to a model's inputs, its answer to what it means, one input a line or over HTTP."""

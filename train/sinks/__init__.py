"""Sinks for metrics and events: JSON lines, console, log, TensorBoard, Weights & Biases."""

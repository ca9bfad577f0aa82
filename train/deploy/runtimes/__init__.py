"""Run an exported model, each format in its own runtime."""

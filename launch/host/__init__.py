"""This machine: its cores, GPUs, locks, signals and processes."""

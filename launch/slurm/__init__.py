"""Slurm as the place where jobs run."""

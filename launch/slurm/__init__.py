"""Slurm, a backend of submission/."""

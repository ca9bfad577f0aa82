"""Operators of our own: what each computes, its kernel for GPUs, and what it is on a CPU."""

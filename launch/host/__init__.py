"""This machine: its cores, its GPUs and who uses them, its processes."""

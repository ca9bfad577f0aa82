"""What Python code and notebooks call, outside of any rank: load a run folder, start a run."""

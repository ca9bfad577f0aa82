"""The ranks of one machine: what is run, started, watched, and how it ended."""

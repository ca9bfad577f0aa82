"""HTML reports of runs and sweeps: history, use of wall time, charts, pages."""

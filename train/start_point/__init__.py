"""Where a new run starts: from given weights, or from where another run stands."""

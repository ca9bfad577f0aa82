"""What a report is made of: a run's history, what its time went into, charts, the page."""

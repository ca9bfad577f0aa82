"""Which parameters train at which step."""

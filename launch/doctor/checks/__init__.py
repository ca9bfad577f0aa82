"""One file for each examination."""

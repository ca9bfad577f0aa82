"""Tasks over ratings."""

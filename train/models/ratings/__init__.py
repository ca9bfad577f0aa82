"""Models of how users rate items."""

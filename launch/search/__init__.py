"""What a sweep searches: its space, and which points are tried."""

"""What needs nothing else of ours, and no torch."""

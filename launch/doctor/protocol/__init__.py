"""How the ranks that are examined work together."""

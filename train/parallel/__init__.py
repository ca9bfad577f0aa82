"""How one model is spread over the ranks."""

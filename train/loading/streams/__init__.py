"""Data sets whose samples come one after the other, in an order of their own."""

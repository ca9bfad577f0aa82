"""Write a model for another runtime, load it back there and compare it."""

"""The state of a run into files and out of them."""

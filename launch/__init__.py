"""Where, when and how often ranks run. Imports no torch: it answers on a login node in a fraction of a second."""

"""Where and how often ranks run. Imports no torch: it works on a login node and answers in a fraction of a second."""

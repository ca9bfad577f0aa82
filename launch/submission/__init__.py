"""Submitting to a cluster, whichever: the backend seam, exit policy, submission folder, snapshot of the code."""

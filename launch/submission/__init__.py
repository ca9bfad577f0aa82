"""Submitting to a cluster, whichever: the interface of a cluster, exit policy, submission folder, snapshot of the code."""

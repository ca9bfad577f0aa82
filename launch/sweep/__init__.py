"""Sweeps: a search space becomes trials, each a whole run of its own, in the slots of a machine."""

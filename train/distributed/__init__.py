"""Ranks: rendezvous, collectives, stop agreement, failures, watchdog."""

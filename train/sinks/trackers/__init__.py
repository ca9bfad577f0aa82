"""Trackers: each in a process or thread of its own, which training neither waits for nor fails with."""

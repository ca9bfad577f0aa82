"""From a command line to a config and its digest."""

"""How a process ends: codes, messages, signals."""

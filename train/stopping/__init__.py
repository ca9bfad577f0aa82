"""What ends a run before its last step, other than a signal, and which of its checkpoints stay."""

"""What keeps a training step in less memory."""

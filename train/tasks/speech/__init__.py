"""Recognition and synthesis of speech."""

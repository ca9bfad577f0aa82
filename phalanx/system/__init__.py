"""What the operating system and the hardware offer a process."""

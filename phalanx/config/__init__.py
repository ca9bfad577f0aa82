"""The config: its schema, and what is checked of it."""

"""The verb that compares devices."""

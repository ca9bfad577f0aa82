"""The trainer: what runs inside every rank."""

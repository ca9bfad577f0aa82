"""The examinations, a file each."""

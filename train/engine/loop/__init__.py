"""The train loop, and what it does between steps: record, evaluate, save."""

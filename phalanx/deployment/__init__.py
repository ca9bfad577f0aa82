"""What `phalanx evaluate`, `export`, `predict` and `serve` share: the words to ranks, and what an export holds."""

"""Where the numbers of a run go: its own files, the terminal, TensorBoard, Weights & Biases."""

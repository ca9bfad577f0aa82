"""The training run: build, train loop, step, evaluation, recorder."""

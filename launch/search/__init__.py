"""The search of a sweep: search space, samplers, pruners, ASHA, and trials in Optuna's storage."""

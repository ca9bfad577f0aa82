"""Pictures of what a model answers, for a task's `show` and for metrics that are drawn."""

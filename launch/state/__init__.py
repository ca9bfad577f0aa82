"""The state of a run or a sweep, from its folder, and the processes that hold it."""

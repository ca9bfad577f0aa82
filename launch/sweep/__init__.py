"""The trials of a sweep: scheduler, trial queue, process watcher, fork server, results."""

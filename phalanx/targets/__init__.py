"""From the `_target_` nodes of a config to objects: where a name leads, which arguments it takes, what may be built."""

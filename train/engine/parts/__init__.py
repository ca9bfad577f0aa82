"""Build the parts of a run from Config and World: the only place that instantiates the config's targets."""

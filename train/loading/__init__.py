"""From a data set to the batches of this rank."""

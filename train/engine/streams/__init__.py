"""What is found out about streams before a run is built."""

"""Recorded and synthesised speech: clips with their transcripts, spectrograms, and what changes these at random."""

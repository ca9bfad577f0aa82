"""The checks of `phalanx doctor`, which run in every rank: measure with torch, gather through the store, judge."""

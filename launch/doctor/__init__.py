"""What runs in every rank of `phalanx doctor`: measures its part with torch, and tells all others through the store."""

"""How ranks under examination meet, gather measurements, and notice a rank that hangs."""

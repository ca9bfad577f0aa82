"""How ranks that are checked meet, gather measurements, and notice a rank that hangs."""

"""How a run or a sweep stands, and who holds it, from its folder."""

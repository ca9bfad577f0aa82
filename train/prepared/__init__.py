"""Data prepared once: downloads of pinned versions, and the arrays written from them, in a cache that runs share."""

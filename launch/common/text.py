"""Formats durations for people."""


def duration_text(seconds: float) -> str:
    """A duration as text, such as 5 s, 3 min, 2.5 h, 4.0 d."""
    for unit, size in (("d", 86400.0), ("h", 3600.0)):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{max(0.0, seconds):.0f} s"

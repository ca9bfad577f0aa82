"""What a data set calls its classes."""

from typing import Any


def class_names(dataset: Any) -> list[str] | None:
    """Its attribute `classes`, a list of names as torchvision's data sets have it; None where there is none."""
    found = getattr(dataset, "classes", None)
    return list(found) if isinstance(found, list | tuple) and found and all(isinstance(c, str) for c in found) else None

"""The indices that `phalanx submit --array` spells."""

import re

from phalanx.exit.codes import ConfigError


def array_indices(array: str) -> list[int]:
    """The indices in such as 0-3, 1,5,7, 0-15:4, each with %2 for two at a time. Raises ConfigError."""
    found: list[int] = []
    for part in re.sub(r"%[1-9]\d*$", "", array).split(","):
        span = re.fullmatch(r"(\d+)(?:-(\d+)(?::([1-9]\d*))?)?", part)
        if span is None:
            raise ConfigError(f"--array={array} is no list of indices. Type --array=0-3, or --array=0-99%10")
        first, last, stride = int(span[1]), int(span[2] or span[1]), int(span[3] or 1)
        found += range(first, last + 1, stride)
    if not found:
        raise ConfigError(f"--array={array} holds no index. Type --array=0-3")
    return sorted(set(found))

"""Chart names of the numbers in a metrics line, such as train/loss."""

from collections.abc import Mapping


def scalars(line: Mapping[str, object]) -> dict[str, float]:
    """The numbers of a line by chart, such as "train/loss" or "eval/accuracy"; step and time are their axes."""
    return {
        f"{line['split']}/{key}": value
        for key, value in line.items()
        if key not in ("step", "time") and isinstance(value, (int, float))
    }

"""Chart names of the numbers in a metrics line: train/loss, eval/accuracy, lr, epoch, speed/samples_per_s."""

from collections.abc import Mapping

_OF_THE_RUN = ("epoch", "lr")  # charts of their own; lr/<group> are a group of charts
_SPEED = ("samples_per_s", "tokens_per_s", "step_time_s", "data_wait_s", "mfu")
_SYSTEM = ("memory_gib", "page_faults")


def scalars(line: Mapping[str, object]) -> dict[str, float]:
    """The numbers of a line by chart, named for the split; step and time are their axes."""
    return {
        _chart(str(line["split"]), key): value
        for key, value in line.items()
        if key not in ("step", "time") and isinstance(value, (int, float))
    }


def _chart(split: str, key: str) -> str:
    if split != "train":
        return f"{split}/{key}"
    if key.partition("/")[0] in _OF_THE_RUN:
        return key
    group = "speed" if key in _SPEED else "system" if key in _SYSTEM else split
    return f"{group}/{key}"

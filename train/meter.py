"""Where the time goes. The clock is an argument."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

STEPPING = ("data", "step", "log")


class Meter:
    """Adds up seconds by part. `seconds` may begin with what an earlier start already spent."""

    def __init__(self, seconds: dict[str, float], clock: Callable[[], float]) -> None:
        self.seconds = seconds
        self._clock = clock
        self._marks = dict(seconds)

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        begin = self._clock()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + self._clock() - begin

    def add(self, name: str, seconds: float) -> None:
        """Count what was spent before there was this meter."""
        self.seconds[name] = self.seconds.get(name, 0.0) + seconds
        self._marks[name] = self.seconds[name]

    def since_mark(self) -> dict[str, float]:
        """Seconds by part since the last call, for a line of metrics."""
        spent = {name: total - self._marks.get(name, 0.0) for name, total in self.seconds.items()}
        self._marks = dict(self.seconds)
        return spent


def rates(spent: dict[str, float], steps: int, samples: int) -> dict[str, float]:
    """Throughput of `steps` steps with `samples` samples. Every rank's time counts the waits for the others in."""
    stepping = sum(spent.get(part, 0.0) for part in STEPPING)
    return {
        "samples_per_s": samples / stepping if stepping else 0.0,
        "step_time_s": stepping / steps,
        "data_wait_s": spent.get("data", 0.0) / steps,
    }


def goodput(seconds: dict[str, float], wall_s: float) -> dict[str, float]:
    """Share of the wall time since the first start that went into steps that were kept, and the seconds of each part.

    What no part accounts for was lost: work done again after a crash, and the time between starts.
    """
    parts = {f"{name}_s": seconds[name] for name in sorted(seconds)}
    stepping = sum(seconds.get(part, 0.0) for part in STEPPING)
    lost = max(0.0, wall_s - sum(seconds.values()))
    return {"goodput": stepping / wall_s if wall_s else 0.0, **parts, "lost_s": lost}

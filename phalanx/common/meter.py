"""Measure where the wall time goes, throughput, page faults and goodput. The clock is an argument."""

import resource
from collections.abc import Callable
from dataclasses import dataclass

STEPPING = ("data", "step", "log")
_MANY_FAULTS = 2000  # per step, of 4 KiB each: far more than a step has when malloc keeps its memory


@dataclass(frozen=True)
class Spent:
    """Seconds by part, and minor page faults of the parts that are steps."""

    seconds: dict[str, float]
    faults: int


class Meter:
    """Add up seconds by part. `seconds` holds what earlier starts of the run spent.

    It is called twice a step, so page faults are read only where a part outside of steps begins and ends.
    """

    def __init__(self, seconds: dict[str, float], clock: Callable[[], float], faults: Callable[[], int]) -> None:
        """`faults` counts this process's minor page faults."""
        self.seconds = seconds
        self._clock = clock
        self._count = faults
        self._faults = 0  # of steps, since the mark
        self._since = faults()  # up to which they are in there
        self._marks = dict(seconds)

    def part(self, name: str) -> "_Part":
        return _Part(self, name)

    def begun(self, name: str) -> float:
        """Start a part; returns the clock. Parts do not overlap."""
        if name not in STEPPING:
            self._faults += self._count() - self._since
        return self._clock()

    def ended(self, name: str, begin: float) -> None:
        self.seconds[name] = self.seconds.get(name, 0.0) + self._clock() - begin
        if name not in STEPPING:
            self._since = self._count()

    def add(self, name: str, seconds: float) -> None:
        """Add seconds that were spent before this meter existed; the next `since_mark` does not include them."""
        self.seconds[name] = self.seconds.get(name, 0.0) + seconds
        self._marks[name] = self.seconds[name]
        self._since = self._count()

    def since_mark(self) -> Spent:
        """Seconds and page faults since the last call, for a line of metrics."""
        seconds = {name: total - self._marks.get(name, 0.0) for name, total in self.seconds.items()}
        now = self._count()
        spent = Spent(seconds, self._faults + now - self._since)
        self._marks, self._faults, self._since = dict(self.seconds), 0, now
        return spent


class _Part:
    def __init__(self, meter: Meter, name: str) -> None:
        self._meter = meter
        self._name = name

    def __enter__(self) -> None:
        self._begin = self._meter.begun(self._name)

    def __exit__(self, *_: object) -> None:
        self._meter.ended(self._name, self._begin)


def minor_faults() -> int:
    """Minor page faults of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def rates(spent: Spent, steps: int, samples: int) -> dict[str, float]:
    """Throughput of `steps` steps with `samples` samples. Every rank's time includes its waits for the others.

    `page_faults` (per step) is only there when it is high: malloc returns memory and faults it in again.
    """
    stepping = sum(spent.seconds.get(part, 0.0) for part in STEPPING)
    faults = spent.faults / steps
    return {
        "samples_per_s": samples / stepping if stepping else 0.0,
        "step_time_s": stepping / steps,
        "data_wait_s": spent.seconds.get("data", 0.0) / steps,
        **({"page_faults": round(faults)} if faults >= _MANY_FAULTS else {}),
    }


def goodput(seconds: dict[str, float], wall_s: float) -> dict[str, float]:
    """Goodput: the share of wall time since the first start spent in steps that were kept; and the seconds of each part.

    `lost_s` is the rest: work repeated after a crash, and the time between starts.
    """
    parts = {f"{name}_s": seconds[name] for name in sorted(seconds)}
    stepping = sum(seconds.get(part, 0.0) for part in STEPPING)
    lost = max(0.0, wall_s - sum(seconds.values()))
    return {"goodput": stepping / wall_s if wall_s else 0.0, **parts, "lost_s": lost}

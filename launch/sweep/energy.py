"""Measures the energy of trials in joules, by the counters of NVML."""

from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from typing import Any

from .workers import Slot

Counter = Callable[
    [str], float | None
]  # a GPU's UUID -> joules since its driver was loaded, None where it does not tell


def nvml_counter(nvml: Any) -> Counter:
    """The counters that NVML reads, from Volta on. Without it, or for a slice of a GPU (MIG), nothing is told."""

    def joules(gpu: str) -> float | None:
        if nvml is None:
            return None
        with suppress(nvml.NVMLError):
            handle = nvml.nvmlDeviceGetHandleByUUID(gpu)
            return float(nvml.nvmlDeviceGetTotalEnergyConsumption(handle)) / 1000.0
        return None

    return joules


class EnergyMeter:
    """Joules of the trials in slots. Trials that share a GPU have equal parts of what it uses meanwhile."""

    def __init__(self, counter: Counter, slots: Collection[Slot]) -> None:
        self._counter = counter
        self._before = {gpu: counter(gpu) for slot in slots for gpu in slot.gpus}
        self._used: dict[Slot, float | None] = {}  # by the trials that run

    def begin(self, slot: Slot) -> None:
        """A trial begins in a slot."""
        self._share(slot.gpus)
        self._used[slot] = 0.0 if slot.gpus else None

    def end(self, slot: Slot) -> float | None:
        """What the trial in a slot has used; None where that was not measured."""
        self._share(slot.gpus)
        return self._used.pop(slot)

    def _share(self, gpus: Sequence[str]) -> None:
        """Divide what GPUs used since the last time among those that ran."""
        for gpu in gpus:
            before, now = self._before[gpu], self._counter(gpu)
            self._before[gpu] = now
            ran = [slot for slot in self._used if gpu in slot.gpus]
            for slot in ran:
                used = self._used[slot]
                known = None not in (before, now, used)
                self._used[slot] = used + (now - before) / len(ran) if known else None  # type: ignore[operator]

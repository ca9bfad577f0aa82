"""Compare devices: whether they took the same steps, within what their precisions allow, and how fast."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .device_run import DeviceRun

# Relative difference of a loss or of a norm that rounding explains after a few steps.
TOLERANCES: Mapping[str, float] = {
    "fp64": 1e-6,
    "fp32": 1e-3,
    "tf32": 1e-2,
    "fp16": 2e-2,
    "bf16": 5e-2,
    "bf16_pure": 1e-1,
}


@dataclass(frozen=True)
class Measured:
    """One device: its first steps one by one, and the steps that were timed, a run a turn."""

    device: str
    first: DeviceRun
    timed: Sequence[DeviceRun]

    def row(self, base_step_s: float) -> dict[str, Any]:
        step_s = self.step_s
        return {
            **{"device": self.device, "name": self.first.device, "precision": self.first.precision},
            **{
                "step_ms": step_s * 1000,
                "samples_per_s": self.timed[0].samples / step_s,
                "speedup": base_step_s / step_s,
            },
        }

    @property
    def step_s(self) -> float:
        """The median over all windows of all turns."""
        return statistics.median(each for run in self.timed for each in run.step_s)


@dataclass(frozen=True)
class Difference:
    """The largest one between the first steps of two devices, relative to the first device's."""

    number: str
    step: int
    values: tuple[float | None, float | None]
    relative: float
    tolerance: float

    @property
    def is_rounding(self) -> bool:
        return self.relative <= self.tolerance

    def told(self, devices: tuple[str, str]) -> str:
        told = ["not finite" if value is None else f"{value:.6g}" for value in self.values]
        one, other = (f"{value} on {device}" for value, device in zip(told, devices, strict=True))
        return (
            f"{self.number} of step {self.step} is {one} and {other}, {self.relative:.2g} apart, where their precisions "
            f"explain {self.tolerance:g}"
        )


def difference(one: DeviceRun, other: DeviceRun) -> Difference:
    """Between the steps that both took."""
    tolerance = max(TOLERANCES[run.precision] for run in (one, other))
    found = [
        Difference(name, step, values, _relative(*values), tolerance)
        for (step, *mine), (_, *theirs) in zip(one.numbers(), other.numbers(), strict=True)
        for name, *pair in zip(("the loss", "the gradient's norm"), mine, theirs, strict=True)
        for values in [(pair[0], pair[1])]
    ]
    last = int(one.lines[-1]["step"])
    for name, mine in one.norms.items():
        values = (mine, other.norms[name])
        found.append(Difference(name, last, values, _relative(*values), tolerance))
    return max(found, key=lambda each: each.relative)


def _relative(one: float | None, other: float | None) -> float:
    if one is None or other is None:  # not finite: alike where both are
        return 0.0 if one is other else float("inf")
    return abs(one - other) / max(abs(one), 1e-12)


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """A line a device."""
    lines = [("device", "", "precision", "a step", "samples/s", "")]
    lines += [
        (
            *(row["device"], row["name"], row["precision"], f"{row['step_ms']:.3f} ms"),
            *(f"{row['samples_per_s']:,.0f}", "" if row is rows[0] else f"{row['speedup']:.2f}x as fast"),
        )
        for row in rows
    ]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    padded = ([cell.ljust(width) for cell, width in zip(line, widths, strict=True)] for line in lines)
    return "\n".join("  ".join(line).rstrip() for line in padded)

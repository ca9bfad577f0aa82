"""Progress of a run: the part of a checkpoint beside weights and optimizer state."""

import logging
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class StepRecord:
    """One step over all ranks. `ratios` maps a metric to its sum and its count."""

    step: int
    ratios: dict[str, tuple[float, float]]
    norm: float
    skipped: bool
    scale: float  # factor of the loss, 0 without loss scaling

    @property
    def not_finite(self) -> str:
        """Why the step was skipped: "loss", "gradient", or "overflow" (fp16), which a lower loss scale cures."""
        if not math.isfinite(self.ratios["loss"][0]):
            return "loss"
        return "overflow" if self.scale > 1 else "gradient"


@dataclass(frozen=True)
class EarlyStopState:
    """Of early_stop: the step of the last evaluation that counted, the best value, and how many since were no better."""

    step: int | None = None
    best: float | None = None
    waited: int = 0


@dataclass
class Progress:
    """Progress of the run. `position` is the data position: the number of samples taken so far."""

    began: float  # seconds since 1970 of the first start
    step: int = 0
    position: int = 0
    applied: int = 0  # steps that were not skipped, as far as the host knows: up to the last record
    skips_in_row: int = 0
    skips: int = 0
    skipped_steps: list[int] = field(default_factory=list)  # the first of them, counted from 1
    best_step: int | None = None
    best_value: float | None = None
    top: list[tuple[int, float]] = field(default_factory=list)  # step and value of the best evaluations, the best first
    evaluation: dict[str, Any] = field(default_factory=dict)  # the newest, as `metric_direction.as_stored` has it
    evaluated: int | None = None  # the step of that evaluation
    early_stop: EarlyStopState = EarlyStopState()
    ended_by: str | None = None  # what ended the run before its last step
    records: list[StepRecord] = field(default_factory=list)  # of the steps since the last line in metrics.jsonl
    seconds: dict[str, float] = field(default_factory=dict)  # by part, without what restarts threw away
    world_sizes: list[int] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> "Progress":
        """From progress.json. Fields that only another version knows are dropped, with a warning."""
        records = [
            StepRecord(
                r["step"], {name: (t, c) for name, (t, c) in r["ratios"].items()}, r["norm"], r["skipped"], r["scale"]
            )
            for r in found.get("records", [])
        ]
        known = {entry.name: found[entry.name] for entry in fields(cls) if entry.name in found}
        if beyond := sorted(found.keys() - known.keys()):
            logger.warning(
                "the progress of another version also holds %s, which this one leaves out", ", ".join(beyond)
            )
        best = found.get("best_step"), found.get("best_value")
        top = found.get("top", [] if None in best else [best])  # a version that kept the best one alone
        known["top"] = [(int(step), float(value)) for step, value in top]
        early = EarlyStopState(**known.pop("early_stop", {}))
        return cls(**{**known, "records": records, "early_stop": early})

"""The updaters of a task with phases, one each, as evaluations, saves and lines of metrics see them."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, final

import torch

from phalanx.config.metric_direction import Results

from ..optim.ema import Average
from ..optim.updater import Updater


class PhasedUpdater:
    """`phases` are the updaters by phase: each steps, clips, skips and counts for itself."""

    scale = None

    def __init__(self, phases: Mapping[str, Updater]) -> None:
        self.phases = phases
        parts = [updater.average for updater in phases.values() if updater.average is not None]
        self.average: Average | None = _Averages(parts) if parts else None

    @property
    def applied(self) -> torch.Tensor:
        """Of the first phase."""
        return next(iter(self.phases.values())).applied

    def rates(self, applied: int, taken: int) -> dict[str, float | None]:
        """The rates of the last step: "lr/<phase>", and "lr" of the first one. Each phase counts for itself."""
        found: dict[str, float | None] = {}
        for phase, updater in self.phases.items():
            own = updater.rates(max(0, int(updater.applied) - 1), max(0, updater.taken - 1))
            rate = own.pop("lr")
            found = {"lr": rate, **found, f"lr/{phase}": rate, **own}
        return found

    def evaluated(self, results: Results) -> None:
        """After an evaluation, whose results are the same on all ranks."""
        for updater in self.phases.values():
            updater.evaluated(results)

    def state(self) -> dict[str, Any]:
        """Everything a restart needs, tensors on the device. A phase that was frozen has taken fewer steps."""
        return {"phases": {name: {"taken": each.taken, **each.state()} for name, each in self.phases.items()}}

    def load(self, state: Mapping[str, Any], taken: int) -> None:
        for phase, updater in self.phases.items():
            updater.load(state["phases"][phase], state["phases"][phase]["taken"])


@final
class _Averages(Average):
    """Those of all phases together. Each updater moves its own."""

    def __init__(self, parts: Sequence[Average]) -> None:
        super().__init__((), 1.0)
        self._parts = parts

    def update(self, applied: torch.Tensor, skipped: torch.Tensor) -> None:
        pass

    def take(self) -> None:
        for part in self._parts:
            part.take()

    @contextmanager
    def swapped_in(self) -> Iterator[None]:
        with ExitStack() as stack:
            for part in self._parts:
                stack.enter_context(part.swapped_in())
            yield

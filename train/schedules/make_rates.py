"""Make the rates of an optimizer's groups by the schedule that the config names for them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from phalanx.exit.codes import ConfigError
from phalanx.targets.instantiate import Targets

from .group_rates import GroupRates, ParamGroup, TableRates
from .schedule import Schedule, factors


@dataclass(frozen=True)
class RatesMaker:
    """`steps` are those of the run."""

    builder: Targets
    steps: int

    def make(
        self,
        schedule: Mapping[str, Any],
        where: str,
        optimizer: torch.optim.Optimizer,
        groups: Sequence[ParamGroup],
        own_rate: bool,
    ) -> GroupRates:
        """The rates of `groups`, which are of `optimizer`, by the node `schedule`. Raises ConfigError.

        `own_rate`: the optimizer's step() changes its rate itself, so no schedule can.
        """
        built = self.builder.build(schedule, where, Schedule)  # type: ignore[type-abstract]
        table = factors(built, self.steps)
        peaks = [group.get("lr") for group in groups]
        if (own_rate or all(peak is None for peak in peaks)) and not bool((table[:-1] == 1.0).all()):
            raise ConfigError(_nothing_to_set(optimizer, own_rate))
        return TableRates(groups, [None if peak is None or own_rate else float(peak) for peak in peaks], table)


def _nothing_to_set(optimizer: torch.optim.Optimizer, own_rate: bool) -> str:
    why = "changes its rate itself in its step()" if own_rate else "has no rate, lr, in its groups"
    return (
        f"The optimizer {type(optimizer).__name__} {why}, so there is nothing for the schedule to set. "
        "Type schedule=constant schedule.warmup_steps=0"
    )

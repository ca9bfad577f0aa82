"""A sweep and the runs of its trials as plain data: folders, command lines, seeds."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from phalanx.config.metric_direction import split_and_name
from phalanx.config.schema import AshaConfig, Auto, Mode, SweepConfig

from ..common.sweep_folder import OUTPUT
from ..search.asha import Asha
from ..search.pruners import pruner_config
from ..search.space import SearchSpace, words_in_order
from ..search.spec import SweepSpec

if TYPE_CHECKING:
    from phalanx.compose.compose import Composed


SCORE = "score_{}"  # attribute of a trial, by the place of the run's seed


class TrialRun(NamedTuple):
    """One run of a trial, with the seed `seed_index` places after the first."""

    trial: int
    seed_index: int


@dataclass(frozen=True)
class SweepPlan:
    """`shared` are the words that a sweep adds to those of every point, `seed` is the first that trains.

    `threads` are those of a rank in this process's slots, None where the words say how many.
    `metric` ranks the trials, which is `metric_name` of the evaluation set `split`, where `mode` is better. `compose`
    composes a command line; `asha` is None for other pruners; `deferred` are the keys that each of the sweep's jobs looks
    up for itself.
    """

    folder: Path
    space: SearchSpace
    config: SweepConfig
    metric: str
    split: str
    metric_name: str
    mode: Mode
    seed: int
    shared: tuple[str, ...]
    threads: int | None
    compose: "Callable[[Sequence[str]], Composed]"
    asha: Asha | None
    deferred: frozenset[str]

    def run(self, trial_run: TrialRun) -> Path:
        """The folder of a run."""
        more = f"-seed{self.seed + trial_run.seed_index}" if self.config.seeds > 1 else ""
        return self.folder / f"{trial_run.trial:04d}{more}"

    def output(self, trial_run: TrialRun) -> Path:
        """The file that the output of its ranks is added to."""
        return self.folder / OUTPUT / f"{self.run(trial_run).name}.txt"

    def words(self, trial_run: TrialRun, chosen: Sequence[str], threads: int | None) -> list[str]:
        """The command line of a run of the point that `chosen` spells; what is trained depends on `threads`, too."""
        seed = [f"seed={self.seed + trial_run.seed_index}"] if self.config.seeds > 1 else []
        return [
            *words_in_order(self.space.typed, chosen),
            *self.shared,
            *added(threads),
            *seed,
            f"run.name='{self.run(trial_run).name}'",
        ]

    def trial_runs(self, trial: int) -> list[TrialRun]:
        """The runs of a trial, one a seed."""
        return [TrialRun(trial, seed_index) for seed_index in range(self.config.seeds)]


def added(threads: int | None) -> list[str]:
    """The words that a sweep adds to a point's and that its weights depend on."""
    return [] if threads is None else [f"train.threads={threads}"]


def plan_of(asked: SweepSpec, threads: int) -> SweepPlan:
    """The plan of the sweep that a command line asks for, in slots with `threads` for each rank."""
    from phalanx.compose.compose import compose
    from phalanx.config.overrides import quoted

    config, sweep = asked.config, asked.sweep
    shared = [*asked.trial_overrides, f"run.root={quoted(str(asked.folder))}"]
    if config.wandb.group is None and not os.environ.get("WANDB_RUN_GROUP"):
        shared.append(f"wandb.group={quoted(asked.folder.name)}")
    if config.mlflow.enabled and config.mlflow.experiment is None and not os.environ.get("MLFLOW_EXPERIMENT_NAME"):
        shared.append(f"mlflow.experiment={quoted(asked.folder.name)}")
    if config.trackio.enabled and config.trackio.project is None:
        shared.append(f"trackio.project={quoted(asked.folder.name)}")
    assert sweep.metric is not None
    assert sweep.mode is not None
    split, name = split_and_name(sweep.metric, config.data)
    return SweepPlan(
        folder=asked.folder,
        space=asked.space,
        config=sweep,
        metric=sweep.metric,
        split=split,
        metric_name=name,
        mode=sweep.mode,
        seed=config.seed,
        shared=tuple(shared),
        threads=threads if isinstance(config.train.threads, Auto) else None,
        compose=compose,
        asha=_asha(asked),
        deferred=frozenset(asked.deferred),
    )


def _asha(asked: SweepSpec) -> Asha | None:
    """None where another pruner is asked for."""
    pruner, config = pruner_config(asked.sweep.pruner), asked.config
    if not isinstance(pruner, AshaConfig):
        return None
    assert pruner.first_step is not None
    smaller = asked.sweep.mode is Mode.min
    return Asha(pruner.first_step, pruner.eta, config.train.global_batch, smaller)

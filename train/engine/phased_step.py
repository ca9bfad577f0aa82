"""One optimizer step of a task with phases: forward, backward and update of each, one after the other."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from phalanx.config.schema import CommHook, ParallelConfig
from phalanx.exit.codes import ConfigError

from ..loading.batch import Batch
from ..loading.loader import SampleBatch, StepBatch
from ..parallel.strategy import ParallelStrategy
from ..tasks.phases import joined
from ..tasks.task import Ratio, Task
from .step import StepResult, TrainStep


@dataclass
class PhasedStep:
    """`phases` are the steps by phase, each of the parameters `names`.

    A phase whose gradient is not finite is skipped alone, and the step counts as one that was skipped. A phase all of
    whose parameters are frozen by train.freeze is left out.
    """

    phases: Mapping[str, TrainStep]
    names: Mapping[str, Sequence[str]]

    def __post_init__(self) -> None:
        self._active = dict(self.phases)

    @property
    def strategy(self) -> ParallelStrategy:
        """Of the first phase."""
        return next(iter(self.phases.values())).strategy

    @property
    def gathers(self) -> bool:
        return any(step.gathers for step in self.phases.values())

    def __call__(self, work: StepBatch) -> StepResult:
        """All ranks call it."""
        found = {}
        for phase, step in self._active.items():
            step.strategy.begin_phase()
            found[phase] = step(work)  # all ranks take part
        results = list(found.values())
        ratios = [
            joined({phase: result.ratios[i] for phase, result in found.items()}) for i in range(len(results[0].ratios))
        ]
        if ratios:
            ratios[0] |= {f"{phase}/grad_norm": Ratio(result.norm, 1) for phase, result in found.items()}
        norm: torch.Tensor = torch.linalg.vector_norm(torch.stack([result.norm for result in results]))
        skipped = torch.stack([result.skipped for result in results]).amax()
        scales = [result.scale for result in results if result.scale is not None]
        return StepResult(work.step, list(ratios), norm, skipped, torch.stack(scales).amax() if scales else None)

    def warm_up(self, sample_batch: SampleBatch) -> tuple[list[str], bool]:
        """That of each phase. Returns the metrics' names, and whether the task waits for other ranks in its forward."""
        names, waits = ["loss"], False
        for phase, step in self._active.items():
            step.strategy.begin_phase()
            try:
                found, talks = step.warm_up(sample_batch)  # all ranks take part
            except ConfigError as error:
                raise ConfigError(f"In phase {phase}: {error}", agreed=error.agreed) from None
            names += [f"{phase}/{name}" for name in [*found, "grad_norm"]]
            waits |= talks
        return names, waits

    def try_alone(self, single: Batch) -> None:
        for step in self._active.values():
            step.try_alone(single)

    def retrain(self, names: Sequence[str]) -> None:
        """Train the parameters `names` and no others from the next step on, each in its phase. All ranks call it."""
        trains = set(names)
        self._active = {}
        for phase, step in self.phases.items():
            if own := [name for name in self.names[phase] if name in trains]:
                step.retrain(own)  # all ranks take part
                self._active[phase] = step


def check_phases(task: Task, strategy: type[ParallelStrategy], config: ParallelConfig) -> None:
    """Raise ConfigError for what a task with phases cannot be combined with."""
    why = None
    if task.counts_data:
        why = "its losses count samples: leave counts_data = True out"
    elif strategy.phase is ParallelStrategy.phase:
        why = f"{strategy.__name__} reduces all gradients at once. Type parallel=ddp"
    elif config.comm_hook is CommHook.powersgd:
        why = "parallel.comm_hook=powersgd keeps one error for all gradients. Type parallel.comm_hook=bf16"
    if why is not None:
        raise ConfigError(f"The task has phases ({', '.join(task.phases)}), and {why}", agreed=True)

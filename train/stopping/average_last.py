"""The average of a run's last checkpoints, which is evaluated and saved at its end: `train.average_last`.

Also called stochastic weight averaging (https://arxiv.org/abs/1803.05407), or checkpoint averaging.
"""

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import final

import torch

from phalanx.config.average_last import check_enough, steps_averaged
from phalanx.config.schema import Config
from phalanx.run_folder import names
from phalanx.run_folder.checkpoints import Checkpoint, Checkpoints, DamagedError, verify

from ..checkpoint import weights
from ..checkpoint.state import State
from ..optim.ema import Average
from ..parallel import buffers
from ..parallel.strategy import ParallelStrategy

logger = logging.getLogger(__name__)


@final
class FixedAverage(Average):
    """Averaged weights and buffers of a run that has ended: no step moves them."""

    def __init__(self, strategy: ParallelStrategy, tensors: Mapping[str, torch.Tensor]) -> None:
        """`tensors` are those of a whole state_dict."""
        super().__init__((), 1.0)
        self._strategy = strategy
        self._tensors = tensors

    def update(self, applied: torch.Tensor, skipped: torch.Tensor) -> None:
        raise AssertionError("a step after the end of the run")

    def take(self) -> None:
        raise AssertionError("the model was loaded after the end of the run")

    @contextmanager
    def swapped_in(self) -> Iterator[None]:
        """Inside, the model holds the average, and afterwards this rank's own tensors again. All ranks call it."""
        strategy, model = self._strategy, self._strategy.model
        held = {name: _copy(buffer) for name, buffer in buffers.named(model).items()}
        tensors = weights.tensors_of(strategy.full_weights())  # all ranks take part, in this and in what follows
        own = {name: value.detach().clone() for name, value in tensors.items() if name not in held}
        weights.put(model, self._tensors, "the average of the last checkpoints", strategy=strategy)
        yield
        # Not after an exception, which other ranks may not have: it ends the run. A forward may have made buffers.
        now = strategy.full_weights()
        with buffers.writable(model):
            strategy.load_full_weights({**now, **{name: value for name, value in own.items() if name in now}})
        for name, buffer in held.items():
            buffers.put(model, name, buffer)


@dataclass(frozen=True)
class AverageLast:
    """Averages the `last` newest checkpoints of multiples of `every` after step `begin`, the final one included."""

    last: int
    every: int
    begin: int

    def steps(self, step: int) -> list[int]:
        """Those that are averaged where the run ends after `step`, ascending."""
        return steps_averaged(self.last, self.every, self.begin, step)

    def take(self, state: State, checkpoints: Checkpoints, step: int) -> list[int]:
        """At the end, after `step`: set the state's average. Returns the steps averaged. All ranks call it.

        A checkpoint that is damaged, or that could not be saved, is left out, which is said.
        """
        world, strategy = state.world, state.strategy
        # All ranks take part; rank 0 looks for the checkpoints and sends them.
        found = world.broadcast_object(
            world.raise_on_all(lambda: _good(checkpoints, self.steps(step)[:-1]) if world.is_rank_zero else None)
        )
        assert found is not None
        # All ranks take part.
        state.updater.average = FixedAverage(strategy, world.raise_on_all(lambda: _mean_with(strategy, found)))
        return [*(checkpoint.step for checkpoint in found), step]


def average_last(config: Config, begin: int, end: int) -> AverageLast | None:
    """As the config has it, for a run from step `begin` to `end`. Raises ConfigError for more than it will have."""
    check_enough(config, begin, end)
    last, every = config.train.average_last, config.checkpoint.every
    return None if last is None or every is None else AverageLast(last, every, begin)


def restore_average(state: State, checkpoint: Checkpoint) -> None:
    """Set the state's average where the run had ended when `checkpoint` was saved. All ranks call it."""
    if checkpoint.has(names.EMA):
        # All ranks take part.
        tensors = state.world.raise_on_all(lambda: weights.read(checkpoint.file(names.EMA)))
        state.updater.average = FixedAverage(state.strategy, tensors)


def steps_needed(average: AverageLast | None, state: State, step: int) -> list[int]:
    """The checkpoints up to that of `step` that an average is yet to be made of; none once it is made."""
    made = isinstance(state.updater.average, FixedAverage)
    return [] if average is None or made else average.steps(step)


def mean(earlier: Iterable[Mapping[str, torch.Tensor]], last: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The mean of floating-point and complex tensors in double precision, in their own types; all else is the last.

    What is the same in all stays to the bit. A buffer that some do not have, or in another shape, is the last.
    """
    sums = {name: torch.zeros_like(value, dtype=_double(value)) for name, value in last.items() if _has_a_mean(value)}
    moved, count = set[str](), 1
    for found in earlier:
        count += 1
        for name in [*sums]:
            if name not in found or found[name].shape != last[name].shape:
                del sums[name]
                continue
            sums[name] += found[name]
            if not torch.equal(found[name], last[name]):
                moved.add(name)
    means = {name: (total + last[name]) / count for name, total in sums.items() if name in moved}
    return {**last, **{name: value.to(last[name].dtype) for name, value in means.items()}}


def _mean_with(strategy: ParallelStrategy, found: Sequence[Checkpoint]) -> dict[str, torch.Tensor]:
    own = weights.on_host(strategy.full_weights())  # all ranks take part
    return mean((weights.read(checkpoint.file(names.MODEL)) for checkpoint in found), own)


def _good(checkpoints: Checkpoints, steps: Iterable[int]) -> list[Checkpoint]:
    """Those of `steps` that are there and whole. Raises ConfigError for one that cannot be read."""
    found, there = [], checkpoints.steps()
    for step in steps:
        folder = checkpoints.folder / names.step_folder(step)
        try:
            if step not in there:
                raise DamagedError("it is not there")
            found.append(verify(folder))
        except DamagedError as error:
            logger.warning("train.average_last leaves out %s: %s", folder.name, error)
    return found


def _has_a_mean(value: torch.Tensor) -> bool:
    return value.is_floating_point() or value.is_complex()


def _double(value: torch.Tensor) -> torch.dtype:
    return torch.complex128 if value.is_complex() else torch.float64


def _copy(buffer: buffers.Buffer) -> buffers.Buffer:
    return buffer if buffer.value is None else buffer._replace(value=buffer.value.detach().clone())

"""Exact metrics over any number of ranks: every sample once, no padding, the same bits for any number of ranks."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain
from typing import Any, NamedTuple

import torch
from torch import nn

from phalanx.exit import user_error
from phalanx.exit.codes import ConfigError

from ..checkpoint.preserve import unchanged
from ..distributed.world import World
from ..loading.batch import Batch, apply, shapes
from ..loading.collation import tell_who_made
from ..loading.loader import TRIED, Fetcher
from ..loading.prefetch import ToDevice
from ..loading.rng import integer, seed_all
from ..loading.shard import Span
from ..optim.ema import Average
from ..optim.precision import Precision
from ..parallel import buffers
from ..sinks.shown import Shown
from ..tasks.answer import checked, checked_shown, derived, joined, updates
from ..tasks.metric_set import MetricSet
from ..tasks.now import Now
from ..tasks.phases import ratios_of
from ..tasks.task import Sum, Task
from .batches import Batches
from .predictions import Predictions

_EVALUATE = 5  # tells these seeds from those of other uses
_SHOW = 7
_PREDICT = 8


@dataclass(frozen=True)
class Found:
    """What an evaluation found: `metrics`, the same on all ranks, and on rank 0 what the task shows and predictions."""

    metrics: dict[str, float]
    shown: Mapping[str, Shown] = field(default_factory=dict)
    predictions: Sequence[Mapping[str, Any]] = ()


@dataclass
class Evaluation:
    """Evaluate on `samples` samples in batches of `batch`, distributed round-robin over the ranks. If the task has metrics,
    each rank gets consecutive batches, so that a merge in rank order is in the order of the samples.

    The model is restored afterwards: modes, buffers, caches, whatever its forward writes.
    """

    key: str  # of the data set in the config, such as data.eval
    fetcher: Fetcher
    samples: int
    batch: int
    task: Task
    precision: Precision
    mover: ToDevice
    parts: tuple[int, ...] = ()  # the samples of each part of a stream that is cut, of which each rank reads some
    collective_forward: bool = False  # the strategy's: all ranks call the model equally often
    shown: int = 0  # samples that the task shows, of the first batch; 0: nothing is shown
    predictions: int = 0  # samples whose predictions are kept, the first ones
    waits: bool = False  # the task waits for other ranks in its forward
    with_grad: bool = False  # autograd on, for a model that differentiates in its forward

    def __call__(self, model: nn.Module, average: Average | None, world: World) -> Found:
        """What is found of `model`, with the weights of its average where there is one. All ranks call it.

        All use rank 0's buffers. Sums and counts are kept per batch, gathered, and added in the order of the batches.
        Random numbers are seeded by the batch's number. Metrics that are no ratios are merged and computed on rank 0.
        """
        with unchanged(model, self.task), nullcontext() if average is None else average.swapped_in():
            buffers.broadcast_buffers(model, world)  # all ranks take part
            metrics = self._metrics(world)
            workers, in_order = self.fetcher.workers, bool(metrics.names)
            plan = self._batches.plan(world.size, in_order=in_order, equal=self.collective_forward, workers=workers)
            mine, numbers = plan[world.rank]
            rows: list[_Row] = []
            shown, kept = dict[str, Shown](), Predictions(self.task, self.predictions)
            with self._evaluating(model, world):
                for number, batch in zip(numbers, self.fetcher.batches(map(self._batches.span, numbers)), strict=True):
                    own = len(rows) < len(mine) and batch is not None
                    if batch is None:
                        number, batch = self._in_place_of(
                            number, [others[len(rows)] for _, others in plan if len(others) > len(rows)]
                        )
                    row = self._row(model, number, batch, metrics if own else self._metrics(world), world)
                    rows.append(row if own or len(rows) >= len(mine) else _no_row(world))
                    if len(rows) == 1 and (world.is_rank_zero or self.collective_forward):
                        shown = self._shown(model, batch, world)
                    self._predict(model, number, batch, kept if own else None, world)
                    world.watchdog.touch()
            del rows[len(mine) :]
            computed = metrics.compute()  # all ranks take part
            shown = {**metrics.shown(), **shown}
        predictions = kept.gathered(world)  # all ranks take part
        names = _all(rows, world)  # all ranks take part
        table = torch.zeros(self._batches.count, len(names), 2, dtype=torch.float64)
        if any(row.names for row in rows):
            cells = [(number, names.index(name)) for number, row in zip(mine, rows, strict=True) for name in row.names]
            table[tuple(torch.tensor(cells).T)] = torch.cat([row.cells for row in rows]).cpu()
        totals = world.sum(table).cumsum(0)[-1]  # all ranks take part
        sums = {name: Sum(float(total), float(count)) for name, (total, count) in zip(names, totals, strict=True)}
        ratios = {name: float(total / count) for name, (total, count) in zip(names, totals, strict=True)}
        return Found(joined(joined(ratios, derived(self.task, sums)), computed), shown, predictions)

    def sanity_check(self, model: nn.Module, world: World) -> list[str]:
        """Try one batch, and a batch of one sample if the last has no more. The caller restores the model.

        Returns the metrics' names. All ranks call it. Raises ConfigError if the task uses collectives of the
        default group, and the ranks would call different numbers of them.
        """
        numbers = [self._batches.first(world.rank, world.size)]
        if (single := self._batches.with_single_sample()) is not None and self._batches.count > 1:
            numbers.append(single)
        one = replace(self.fetcher, workers=min(1, self.fetcher.workers), prefetch=1)
        # All ranks take part, in this and what follows.
        found = world.raise_on_all(lambda: list(one.batches(map(self._batches.span, numbers))))
        numbered = list(zip(numbers, found, strict=True))
        numbered[0] = world.raise_on_all(lambda: self._first_of_some(numbered[0], range(max(TRIED, world.size))))
        rows, metrics, computed, talks = world.raise_on_all(lambda: self._try(model, numbered, world))
        fixed = [name for name in computed if not metrics.may_lack(name)]
        seen = world.gather((self.with_grad, talks, fixed))
        self.with_grad = any(with_grad for with_grad, _, _ in seen)
        self.waits = any(talks for _, talks, _ in seen)
        if self.waits:
            self._check_equal(world.size)
        if odd := [names for _, _, names in seen if names != fixed]:
            raise ConfigError(
                f"The task's metrics are {', '.join(fixed) or 'none'} on one rank and {', '.join(odd[0]) or 'none'} on "
                "another. metrics() and compute() are to give the same names on all, whatever the samples",
                agreed=True,
            )
        ratios = dict.fromkeys(_all(rows, world), 0.0)
        more = world.raise_on_all(lambda: derived(self.task, _sums(rows)))
        return list(world.raise_on_all(lambda: joined(joined(ratios, more), computed)))  # all ranks take part

    def _try(
        self, model: nn.Module, numbered: Sequence[tuple[int, Batch]], world: World
    ) -> "tuple[list[_Row], MetricSet, dict[str, float], bool]":
        """Rows of the batches, the metrics and their values, and whether the batches used collectives.

        Sets `with_grad` if the model fails without autograd; raises what it raises with autograd.
        """
        before = world.collectives()
        for self.with_grad in (False, True):
            metrics = self._metrics(world)
            try:
                with self._evaluating(model, world):
                    rows = [self._row(model, number, batch, metrics, world) for number, batch in numbered]
                    self._shown(model, numbered[0][1], world)
                    for number, batch in numbered[: bool(self.predictions)]:
                        kept = Predictions(self.task, self.samples)
                        self._predict(model, number, batch, kept, world)
            except RuntimeError as error:
                if self.with_grad or "grad" not in str(error):
                    raise
            else:
                break
        talks = world.collectives() != before
        some = any(row.names for row in rows)  # no collate has left all of them empty
        return rows, metrics, metrics.sanity_check() if some else {}, talks

    def _check_equal(self, ranks: int) -> None:
        if not self._batches.are_equal(ranks):
            sizes = range(1, self.batch + 1)
            fits = [batch for batch in sizes if replace(self._batches, batch=batch).are_equal(ranks)]
            say = f"Type eval.batch={fits[-1]}" if fits else f"Evaluate on a multiple of that, or type {self.key}=null"
            raise ConfigError(
                f"{who_waits(self.collective_forward)} waits for other ranks in its evaluation, so all need as many "
                f"batches of one size, and {self.key} has {self.samples} samples in batches of {self.batch} for {ranks} "
                f"ranks. {say}",
                agreed=True,
            )

    @cached_property
    def _batches(self) -> Batches:
        return Batches(self.parts or (self.samples,), self.batch)

    def _in_place_of(self, number: int, of_ranks: Sequence[int]) -> tuple[int, Batch]:
        """What to call the model with where a collate left nothing of batch `number`.

        Where a forward needs all ranks that is the first batch with samples of those that ranks have now: each rank finds
        the same, and where there is none, none calls the model. Raises ConfigError where the task would be waited for.
        """
        if self.collective_forward:
            return self._first_of_some((number, None), of_ranks)
        if self.waits:
            raise ConfigError(nothing_left(f"{self.key}, from sample {self._batches.span(number).start} on"))
        return number, None

    def _first_of_some(self, own: tuple[int, Batch], others: Iterable[int]) -> tuple[int, Batch]:
        """Number and batch of `own`; where a collate has left nothing of it the first of `others` that has samples."""
        here = replace(self.fetcher, workers=0)
        for number in others if own[1] is None else ():
            if number < self._batches.count and (batch := next(here.batches([self._batches.span(number)]))) is not None:
                return number, batch
        return own

    @contextmanager
    def _evaluating(self, model: nn.Module, world: World) -> Iterator[None]:
        model.eval()
        now = self.task.now
        self.task.now = Now(now.step + now.training, now.steps, shown=self.shown)  # restored with the task
        with torch.set_grad_enabled(self.with_grad), self.precision.autocast(world.device):
            yield

    def _shown(self, model: nn.Module, batch: Batch, world: World) -> dict[str, Shown]:
        """What the task shows of the first batch. All ranks call it where a forward needs all, else rank 0 alone."""
        if not self.shown or type(self.task).show is Task.show or batch is None:
            return {}
        seed_all(integer(_SHOW), world.device)
        with user_error.context(batch=shapes(batch)):
            return checked_shown(self.task.show(model, apply(batch, self.mover)))

    def _metrics(self, world: World) -> MetricSet:
        return MetricSet(self.task, world, drawn=self.shown > 0)

    def _predict(self, model: nn.Module, number: int, batch: Batch, kept: Predictions | None, world: World) -> None:
        """Keep the predictions of a batch, None of one that is repeated. Where a forward needs all ranks each makes one."""
        span = self._batches.span(number)
        if not self.predictions or batch is None or not (self.collective_forward or (kept and kept.wants(span))):
            return
        seed_all(integer(_PREDICT, number), world.device)
        (kept or Predictions(self.task, self.predictions)).take(model, apply(batch, self.mover), span)

    def _row(self, model: nn.Module, number: int, batch: Batch, metrics: MetricSet, world: World) -> "_Row":
        """Sums and counts of batch `number`; `metrics` are updated with it. None is a batch that a collate left empty."""
        if batch is None:
            return _no_row(world)
        seed_all(integer(_EVALUATE, number), world.device)
        try:
            try:
                found = ratios_of(self.task, model, apply(batch, self.mover))
            except Exception as error:
                raise tell_who_made(error, self.fetcher.source.collate) from error.__cause__
            ratios = checked(found, trains=False)
            seed_all(integer(_EVALUATE, number), world.device)  # whatever `ratios` drew
            metrics.update(updates(found), ratios)
        except Exception as error:
            user_error.add_context(error, batch=shapes(batch))
            raise
        cells = [_scalar(cell, world.device) for ratio in ratios.values() for cell in ratio]
        return _Row(list(ratios), torch.stack(cells).view(len(ratios), 2))


def few_samples(evaluation: Evaluation, world: World) -> Batch:
    """Two samples to try, as they are fetched: the first two, and of a stream the first batch of this rank."""
    fetcher = replace(evaluation.fetcher, workers=min(1, evaluation.fetcher.workers), prefetch=1, stay=False)
    batches = evaluation._batches
    whole = batches.span(batches.first(world.rank, world.size))
    return next(iter(fetcher.batches([whole if evaluation.parts else Span(0, min(2, evaluation.samples))])))


class _Row(NamedTuple):
    """Of one batch: metrics, and their sums and counts, shape (metrics, 2), on the device."""

    names: list[str]
    cells: torch.Tensor


def _no_row(world: World) -> _Row:
    return _Row([], torch.zeros(0, 2, dtype=torch.float64, device=world.device))


def _sums(rows: Sequence[_Row]) -> dict[str, Sum]:
    """Over these batches."""
    found: dict[str, Sum] = {}
    for row in rows:
        for name, (total, count) in zip(row.names, row.cells.tolist(), strict=True):
            before = found.get(name, Sum(0.0, 0.0))
            found[name] = Sum(before.total + total, before.count + count)
    return found


def who_waits(collective_forward: bool) -> str:
    """Whose collectives were counted in a forward; `collective_forward` is the strategy's."""
    return "The task, or the parallel strategy in the default process group," if collective_forward else "The task"


def nothing_left(whose: str) -> str:
    """The message for a rank whose collate left it no sample, where the others would wait for it in their forward."""
    return (
        f"A collate left none of the samples that this rank has of {whose}, and the task, or a SyncBatchNorm, waits for "
        "other ranks in its forward: they would wait for ever. Return a batch for any samples, such as one of zeros with a "
        "count of 0, or leave such samples out of the data set"
    )


def _all(rows: Sequence[_Row], world: World) -> list[str]:
    """The union of the metric names of all ranks' batches. All ranks call it."""
    own = dict.fromkeys(chain(*(row.names for row in rows)))
    return list(dict.fromkeys(chain(*world.gather(list(own)))))  # all ranks take part


def _scalar(cell: torch.Tensor | int, device: torch.device) -> torch.Tensor:
    """In float64 on the device; a host number is filled in there, without a synchronisation."""
    if isinstance(cell, torch.Tensor):
        return cell.detach().to(device, torch.float64)
    return torch.full((), cell, dtype=torch.float64, device=device)

"""The evaluation sets of a run."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch.utils.data import Dataset

from phalanx.config.metric_direction import TEST
from phalanx.config.schema import Config

from ...distributed.world import World
from ...evaluation.evaluate import Evaluation
from ...evaluation.sets import EvaluationSets
from ...evaluation.times import EvaluationTimes
from ...loading.collation import UserCollation
from ...loading.prefetch import ToDevice
from ...loading.workers.shared_dataset import SharedDataset
from ...optim.precision import Precision
from ...parallel.strategy import ParallelStrategy
from ...tasks.task import Task
from ..streams.look_at_streams import Streams
from . import data_loading
from .rank_parts import RankParts


@dataclass(frozen=True)
class EvaluatedWith:
    """What evaluations are made of; `datasets` and `collations` by the rest of their keys below `data`."""

    datasets: Mapping[str, Dataset[Any]]
    collations: Mapping[str, UserCollation | None]
    streams: Streams
    shared: SharedDataset
    task: Task
    mover: ToDevice
    precision: Precision
    collective_forward: bool  # the strategy's


def evaluation_sets(
    config: Config, alone: RankParts, strategy: ParallelStrategy, precision: Precision, world: World
) -> EvaluationSets:
    shared, collective = alone.loader.fetcher.shared, strategy.collective_forward
    of_run = (alone.datasets, alone.collations, alone.streams, shared, alone.task, alone.mover)
    sets = evaluations(config, EvaluatedWith(*of_run, precision, collective), world)
    test = sets.pop(TEST, None)
    times = EvaluationTimes(config.eval, alone.loader.timeline, alone.loader.epoch_samples)
    return EvaluationSets(sets, test, times)


def evaluations(config: Config, parts: EvaluatedWith, world: World) -> dict[str, Evaluation]:
    """Of each data set but the one that is trained on, by split, in the config's order; that of data.test comes last."""
    names = [name for name in parts.datasets if name != "train"]
    return {name.rpartition(".")[2]: _evaluation(config, parts, name, world) for name in names}


def _evaluation(config: Config, parts: EvaluatedWith, name: str, world: World) -> Evaluation:
    dataset, key, batch = parts.datasets[name], f"data.{name}", config.eval.batch
    collate, stay, batches = parts.collations[name], name != TEST, None if name == TEST else config.eval.batches
    streamed = parts.streams.evaluations.get(name)
    samples = data_loading.length(dataset, key) if streamed is None else sum(streamed.samples)
    fetcher = data_loading.evaluation_fetcher(config, streamed or dataset, key, collate, world, parts.shared, stay=stay)
    return Evaluation(
        key=key,
        fetcher=fetcher,
        samples=samples if batches is None else min(samples, batches * batch),
        parts=() if streamed is None else streamed.samples,
        batch=batch,
        task=parts.task,
        precision=parts.precision,
        mover=parts.mover,
        collective_forward=parts.collective_forward,
        shown=config.log.shown,
        predictions=config.eval.predictions,
    )

"""The evaluation sets of a run."""

from phalanx.config.metric_direction import TEST
from phalanx.config.schema import Config

from ...distributed.world import World
from ...evaluation.evaluate import Evaluation
from ...evaluation.sets import EvaluationSets
from ...evaluation.times import EvaluationTimes
from ...optim.precision import Precision
from ...parallel.strategy import ParallelStrategy
from . import data_loading
from .rank_parts import RankParts


def evaluation_sets(
    config: Config, alone: RankParts, strategy: ParallelStrategy, precision: Precision, world: World
) -> EvaluationSets:
    def evaluation(name: str, batches: int | None) -> Evaluation:
        dataset, key, batch = alone.datasets[name], f"data.{name}", config.eval.batch
        shared, collate, stay = alone.loader.fetcher.shared, alone.collations[name], name != TEST
        streamed = alone.streams.evaluations.get(name)
        samples = data_loading.length(dataset, key) if streamed is None else sum(streamed.samples)
        return Evaluation(
            key=key,
            fetcher=data_loading.evaluation_fetcher(
                config, streamed or dataset, key, collate, world, shared, stay=stay
            ),
            samples=samples if batches is None else min(samples, batches * batch),
            parts=() if streamed is None else streamed.samples,
            batch=batch,
            task=alone.task,
            precision=precision,
            mover=alone.mover,
            collective_forward=strategy.collective_forward,
            predictions=config.eval.predictions,
        )

    sets = {
        name.rpartition(".")[2]: evaluation(name, config.eval.batches)
        for name in alone.datasets
        if name not in ("train", TEST)
    }
    test = evaluation(TEST, None) if TEST in alone.datasets else None
    times = EvaluationTimes(config.eval, alone.loader.timeline, alone.loader.epoch_samples)
    return EvaluationSets(sets, test, times)

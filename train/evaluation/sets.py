"""The evaluation sets of a run, by split."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from torch import nn

from phalanx.config.metric_direction import TEST

from ..distributed.world import World
from .evaluate import Evaluation
from .times import EvaluationTimes


@dataclass(frozen=True)
class EvaluationSets:
    """`sets` are those of data.eval by split, in the config's order; `test` is that of data.test."""

    sets: Mapping[str, Evaluation]
    test: Evaluation | None
    times: EvaluationTimes

    def all(self) -> Iterable[tuple[str, Evaluation]]:
        yield from self.sets.items()
        if self.test is not None:
            yield TEST, self.test

    def sanity_check(self, model: nn.Module, world: World) -> dict[str, list[str]]:
        """Try one batch of each set. The caller restores the model. Returns the metrics' names by split of data.eval.

        All ranks call it. Raises ConfigError.
        """
        found = {split: evaluation.sanity_check(model, world) for split, evaluation in self.all()}
        return {split: found[split] for split in self.sets}

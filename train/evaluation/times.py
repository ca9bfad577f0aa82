"""After which steps a run is evaluated."""

from dataclasses import dataclass
from fractions import Fraction

from phalanx.config.schema import EvalConfig

from ..loading.loader import Timeline


@dataclass(frozen=True)
class EvaluationTimes:
    """`epoch_samples` are the samples of one pass over the training data."""

    config: EvalConfig
    timeline: Timeline
    epoch_samples: int

    def before_training(self, step: int) -> bool:
        """Whether to evaluate where a start stands at `step`: at the run's first step alone, as eval.first says."""
        return self.config.first and step == self.timeline.step

    def after(self, step: int, position: int, samples: int) -> bool:
        """Whether to evaluate after `step` steps, the last of which came to `position` by `samples` samples."""
        config = self.config
        if step == self.timeline.steps or (config.every is not None and step % config.every == 0):
            return True
        if config.every_epochs is None:
            return False
        every = Fraction(str(config.every_epochs)) * self.epoch_samples  # exact: 0.1 of 1000 samples are 100
        return position // every > (position - samples) // every

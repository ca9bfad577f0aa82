"""What a run that trains consists of, for all that happens between its steps."""

from dataclasses import dataclass

from phalanx.common.meter import Meter
from phalanx.config.schema import Config

from ...checkpoint.progress import Progress
from ...distributed.world import World
from ..parts.build import Parts
from .metric_window import MetricWindow
from .recorder import Recorder


@dataclass(frozen=True)
class RunContext:
    """The parts of a run, how far it is, and who counts and records."""

    config: Config
    world: World
    parts: Parts
    progress: Progress
    meter: Meter
    recorder: Recorder
    window: MetricWindow

    def take_steps(self, *, asks: bool = False) -> bool:
        """Fetch and count the new steps; returns whether any rank `asks`. All ranks call it, after the same step."""
        records, asked = self.window.fetch(self.world, asks=asks)  # all ranks take part
        self.recorder.take(records)
        return asked

"""The best values of the evaluations' metrics so far, which trackers show beside the last ones."""

import json
import math
from collections.abc import Mapping
from pathlib import Path

from phalanx.common.files import read_bytes
from phalanx.config.metric_direction import direction
from phalanx.config.schema import CheckpointConfig, Mode
from phalanx.exit.codes import ConfigError
from phalanx.run_folder import names

from ..scalars import scalars


class BestValues:
    """By chart, such as "best/eval/accuracy". `modes` are the directions that the config says, by metric.

    A metric whose direction neither they nor its name tell has no best value.
    """

    def __init__(self, modes: Mapping[str, Mode]) -> None:
        self._modes = modes
        self._best: dict[str, float] = {}

    def take(self, line: Mapping[str, object]) -> dict[str, float]:
        """Those of the line's values that are the best so far, by chart; none of a training line."""
        if line["split"] == "train":
            return {}
        better = {}
        for chart, value in scalars(line).items():
            mode, name = self._mode(chart), f"best/{chart}"
            if mode is None or not math.isfinite(value):
                continue
            sign = 1 if mode is Mode.max else -1
            if name not in self._best or sign * value > sign * self._best[name]:
                better[name] = self._best[name] = value
        return better

    def _mode(self, chart: str) -> Mode | None:
        metric = chart.partition("/")[2]  # the config names it with its split or without
        try:
            return self._modes.get(chart) or self._modes.get(metric) or direction(metric, None, "")
        except ConfigError:
            return None


def best_so_far(checkpoint: CheckpointConfig, folder: Path) -> BestValues:
    """Those of the starts before, by metrics.jsonl in the run's `folder`. A direction that `checkpoint` says holds."""
    said = checkpoint.best_mode if checkpoint.best_metric else None
    found = BestValues({} if said is None else {str(checkpoint.best_metric): said})
    for line in read_bytes(folder / names.METRICS).splitlines():
        if b'"split":"train"' not in line:
            found.take(json.loads(line))
    return found

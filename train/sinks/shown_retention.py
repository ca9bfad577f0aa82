"""Which evaluations keep what they have shown: the newest, beside the first and the best."""

import re
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import final

from phalanx.config.metric_direction import WatchedMetric
from phalanx.run_folder import names
from phalanx.run_folder.jsonl import read_lines

_FOLDER = re.compile(rf"(.+)_{names.STEP}(\d{{8,}})")


@final
class ShownRetention:
    """Removes folders of `folder`/shown, at once those past `step`, which a start that continues from there shows again.

    Of each split `keep` newest stay, the first, and that of the step that is the best by `best`, as `take` is told.
    """

    def __init__(self, folder: Path, step: int, keep: int, best: WatchedMetric | None) -> None:
        self._shown = folder / names.SHOWN
        self._keep = keep
        self._best = best
        self._best_step: int | None = None
        self._best_value: float | None = None
        for split, steps in self._found().items():
            for past in steps:
                if past > step or split == "test":
                    self._remove(split, past)
        for line in read_lines(folder) if best is not None else ():
            self.take(line)

    def take(self, line: Mapping[str, object]) -> None:
        """Take a line of metrics.jsonl: is it the best so far?"""
        if self._best is None or line["split"] != self._best.split:
            return
        value = self._best.value({self._best.split: line})
        if value is not None and (self._best_value is None or self._best.is_better(value, self._best_value)):
            self._best_step, self._best_value = int(str(line["step"])), value

    def prune(self, split: str) -> None:
        """Call it when something was shown of `split`."""
        steps = self._found().get(split, [])
        for step in steps[1 : -self._keep]:
            if step != self._best_step:
                self._remove(split, step)

    def _found(self) -> dict[str, list[int]]:
        """The steps of each split, ascending."""
        found: dict[str, list[int]] = {}
        with suppress(OSError):
            for entry in self._shown.iterdir():
                if (match := _FOLDER.fullmatch(entry.name)) and not entry.is_symlink():
                    found.setdefault(match[1], []).append(int(match[2]))
        return {split: sorted(steps) for split, steps in found.items()}

    def _remove(self, split: str, step: int) -> None:
        shutil.rmtree(self._shown / names.evaluation_name(split, step), ignore_errors=True)

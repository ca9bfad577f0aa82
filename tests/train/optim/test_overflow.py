"""A gradient that overflowed because the loss was scaled up is no sign of trouble while the scale can fall."""

from collections.abc import Mapping

import pytest
import torch

from phalanx.exit.codes import GaveUp
from phalanx.train.checkpoint.progress import Progress
from phalanx.train.engine.loop.metric_window import MetricWindow
from phalanx.train.engine.loop.recorder import Recorder
from phalanx.train.engine.step import TrainStep
from phalanx.train.optim.precision import LossScale
from phalanx.train.sinks.sink import Sink
from tests.train.built_parts import built, warmed_up
from tests.train.small_runs import planted

pytestmark = pytest.mark.usefixtures("switches")


class Heard(Sink):
    def __init__(self) -> None:
        self.reasons: list[object] = []

    def write(self, line: Mapping[str, object]) -> None:
        pass

    def event(self, event: Mapping[str, object]) -> None:
        self.reasons.append(event["not_finite"])

    def close(self, summary: Mapping[str, object] | None) -> None:
        pass


def skipped(value: str, steps: int, max_skips: int) -> tuple[list[object], Progress, LossScale]:
    """Reasons of the skips in a run whose every batch holds `value`, with float16's loss scaling on a CPU."""
    every_batch = range(0, 8 * steps, 8)
    overrides = planted(samples=8 * steps, spoilt=every_batch, value=f"'{value}'")
    _, world, parts = built([*overrides, f"train.steps={steps}", "train.clip_norm=1.0", "optim=sgd"])
    assert isinstance(parts.step, TrainStep)
    scale = parts.step.updater.scale = LossScale(torch.device("cpu"))
    window = MetricWindow(warmed_up(parts))
    heard = Heard()
    recorder = Recorder(Progress(began=0.0), heard, parts.loader, max_skips, task=parts.task, keep_best=1)
    try:
        for work in parts.loader.from_step(0):
            window.add(parts.step(work))
            recorder.take(window.fetch(world)[0])
    except GaveUp:
        heard.reasons.append("gave up")
    return heard.reasons, recorder.progress, scale


def test_the_scale_falls_until_the_gradient_fits_and_the_run_goes_on() -> None:
    reasons, progress, scale = skipped("1e16", steps=12, max_skips=1)
    overflows = len(reasons)
    assert reasons == ["overflow"] * overflows
    assert 2 <= overflows < 12
    assert progress.applied == 12 - overflows
    assert progress.skips == overflows
    assert progress.skips_in_row == 0
    assert float(scale.factor) == 65536 / 2**overflows


def test_a_gradient_that_overflows_at_scale_one_counts_towards_giving_up() -> None:
    reasons, progress, _ = skipped("1e25", steps=40, max_skips=3)
    assert reasons == ["overflow"] * 16 + ["gradient"] * 3 + ["gave up"]
    assert progress.skips == 19


def test_a_loss_that_is_not_finite_counts_whatever_the_scale() -> None:
    reasons, _, _ = skipped("nan", steps=40, max_skips=3)
    assert reasons == ["loss"] * 3 + ["gave up"]

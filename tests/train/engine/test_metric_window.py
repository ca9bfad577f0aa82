"""What the steps between two lines leave behind is little, and the records are the same however many steps they span."""

import tracemalloc
from collections.abc import Mapping

import pytest
import torch

from phalanx.exit.rank_env import RankEnv
from phalanx.train.distributed.rendezvous import join
from phalanx.train.distributed.world import World
from phalanx.train.engine.loop import metric_window as module
from phalanx.train.engine.loop.metric_window import MetricWindow
from phalanx.train.engine.step import StepResult
from phalanx.train.tasks.task import Ratio


@pytest.fixture
def world() -> World:
    from phalanx.config.schema import Backend, Device, WorldConfig

    made = join(
        RankEnv.from_environment({}), WorldConfig(device=Device.cpu, backend=Backend.auto, timeout_s=600.0), False
    )
    made.watchdog.close()
    return made


def result(step: int) -> StepResult:
    generator = torch.Generator().manual_seed(step)
    loss, hits = torch.rand((), generator=generator), torch.rand((), generator=generator, dtype=torch.float64)
    ratios: list[Mapping[str, Ratio]] = [
        {"loss": Ratio(loss, 8)},
        {"loss": Ratio(loss * 3, 8), "accuracy": Ratio(hits, torch.tensor(8))},
    ]
    return StepResult(step, ratios[: 1 + step % 2], loss * 2, torch.tensor(step % 5 == 0), None)


@pytest.mark.parametrize("steps", [0, 1, 7, 8, 21])
def test_records_do_not_depend_on_how_many_steps_lie_together(
    world: World, monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    found = []
    for lot in (8, 1000):
        monkeypatch.setattr(module, "_CHUNK_STEPS", lot)
        window = MetricWindow(["loss"])
        for step in range(steps):
            window.add(result(step))
        found.append((window.fetch(world), window.names))
    assert found[0] == found[1]
    (records, _), _ = found[0]
    assert [record.step for record in records] == list(range(steps))
    assert [record.skipped for record in records] == [step % 5 == 0 for step in range(steps)]


def test_a_step_without_a_line_costs_few_bytes() -> None:
    window = MetricWindow(["loss", "accuracy"])
    tracemalloc.start()
    for step in range(4 * module._CHUNK_STEPS):
        window.add(result(step))
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held / (4 * module._CHUNK_STEPS) < 1500, "33 kB, as it was, is 660 MB for a line in 20,000 steps"
    assert not window._results

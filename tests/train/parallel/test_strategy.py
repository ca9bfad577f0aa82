"""A second parallel strategy works through the same step, updater, loop, saves and evaluation."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.ranks import Results, Starter
from tests.train.parallel.flat_strategy import FLAT
from tests.train.small_runs import killed_once, planted

TRAINED = (
    *("train.precision=fp64", "train.clip_norm=0.55", "train.ema_decay=0.9", "train.micro_batch=2", "optim=sgd"),
    *("train.steps=12", "train.epochs=null", "checkpoint.every=5", "eval.every=4", "log.every=1"),
    *("data.eval={_target_: tests.train.faulty_parts.Planted, samples: 20}", "eval.batch=8"),
)


def run(**options: object) -> tuple[str, ...]:
    return (*planted(**options), *TRAINED)  # type: ignore[arg-type]


def weights(results: Results, name: str) -> Mapping[str, torch.Tensor]:
    return load_file(results.folder / "checkpoints" / "step_00000012" / name)


def check_close(one: Any, other: Any) -> None:
    """Numbers within 1e-9, all else equal."""
    if isinstance(one, float):
        assert math.isclose(one, other, rel_tol=1e-9, abs_tol=1e-12)
    elif isinstance(one, Mapping):
        assert one.keys() == other.keys()
        for name in one:
            check_close(one[name], other[name])
    else:
        assert one == other


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_one_flat_copy_of_the_parameters_trains_to_the_weights_of_ddp(starter: Starter, ranks: int) -> None:
    """With accumulation, a clipped norm, an average, evaluations and saves, on which it is continued bit for bit."""
    ddp = starter.train(ranks, *run(), name="ddp")
    flat = starter.train(ranks, *run(), FLAT, name="flat")
    norms = [line["grad_norm"] for line in ddp.metrics("train")]
    assert min(norms) < 0.55 < max(norms), "some are clipped, and others not"
    assert len(flat.timeless()) == len(ddp.timeless()) == 15
    for one, other in zip(ddp.timeless(), flat.timeless(), strict=True):
        check_close(one, other)
    for name in ("model.safetensors", "ema.safetensors"):
        found, expected = weights(flat, name), weights(ddp, name)
        assert found.keys() == expected.keys()
        for key, tensor in expected.items():
            assert tensor.dtype == torch.float64
            torch.testing.assert_close(found[key], tensor, rtol=0, atol=1e-9)
    marker = Path(starter.folder) / "killed"
    continued = killed_once(starter, ranks, *run(kill_at=8 * 7, marker=marker), FLAT)
    assert [event["step"] for event in continued.events("resume")] == [5]
    assert continued.sha256 == flat.sha256
    assert continued.timeless() == flat.timeless()


def test_a_strategy_is_a_class_of_its_kind_and_another_one_is_another_run(starter: Starter) -> None:
    ended = starter.run(1, *run(), "parallel._target_=phalanx.models.MLP", "run.name=r")
    assert ended.codes == [2]
    assert "parallel._target_=phalanx.models.MLP is no class derived from ParallelStrategy" in ended.output
    starter.train(1, *run(), name="one")
    ended = starter.run(1, *run(), FLAT, "run.name=one")
    assert ended.codes == [2]
    assert "parallel._target_" in ended.output

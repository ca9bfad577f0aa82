"""A second and a third parallel strategy work through the same step, updater, loop, saves and evaluation."""

import math
import shutil
import signal
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from phalanx.compose.compose import compose
from phalanx.exit.codes import ConfigError
from phalanx.train.engine.parts.config_targets import check_targets, targets
from phalanx.train.parallel.ddp import DDPStrategy
from tests.phalanx.compose.others import other, with_value
from tests.ranks import Results, Starter
from tests.train.parallel.flat_strategy import FLAT
from tests.train.parallel.sharded_strategy import SHARDED
from tests.train.small_runs import SAMPLES, planted, undisturbed_and_killed

TRAINED = (
    *("train.precision=fp64", "train.clip_norm=0.55", "train.ema_decay=0.9", "train.micro_batch=2", "optim=sgd"),
    *("train.steps=12", "train.epochs=null", "checkpoint.every=5", "eval.every=4", "log.every=1"),
    *("data.eval={_target_: tests.train.faulty_parts.Planted, samples: 20}", "eval.batch=8"),
)


def run(samples: int = SAMPLES, **options: object) -> tuple[str, ...]:
    return (*planted(samples, **options), *TRAINED)


def weights(results: Results, name: str) -> Mapping[str, torch.Tensor]:
    return load_file(max(results.folder.glob("checkpoints/step_*[0-9]")) / name)


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


def check_trains_alike(ddp: Results, other: Results) -> None:
    """The same lines of metrics, and the same weights and average in the last checkpoint, within 1e-9."""
    norms = [line["grad_norm"] for line in ddp.metrics("train")]
    assert min(norms) < 0.55 < max(norms), "some are clipped, and others not"
    assert len(other.timeless()) == len(ddp.timeless())
    for line, own in zip(ddp.timeless(), other.timeless(), strict=True):
        check_close(line, own)
    for name in ("model.safetensors", "ema.safetensors"):
        found, expected = weights(other, name), weights(ddp, name)
        assert found.keys() == expected.keys()
        for key, tensor in expected.items():
            assert tensor.dtype == torch.float64
            torch.testing.assert_close(found[key], tensor, rtol=0, atol=1e-9)


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_one_flat_copy_of_the_parameters_trains_to_the_weights_of_ddp(starter: Starter, ranks: int) -> None:
    """With accumulation, a clipped norm, an average, evaluations and saves, on which it is continued bit for bit."""
    ddp = starter.train(ranks, *run(), name="ddp")
    flat, continued = undisturbed_and_killed(starter, ranks, *run(kill_at=8 * 7), FLAT)
    assert len(ddp.timeless()) == 15
    check_trains_alike(ddp, flat)
    assert [event["step"] for event in continued.events("resume")] == [5]
    assert continued.sha256 == flat.sha256
    assert continued.timeless() == flat.timeless()


@pytest.mark.parametrize("ranks", [1, 3])
def test_shards_of_the_parameters_train_to_the_weights_of_ddp(starter: Starter, ranks: int) -> None:
    """Though a forward needs all ranks: with other numbers of micro-batches, and steps and evaluations without a sample.

    Killed, it continues bit for bit, and on another number of ranks to the same weights.
    """
    uneven = ("train.steps=null", "train.epochs=1", f"eval.batch={12 if ranks == 3 else 8}", "optim.fused=false")
    ddp = starter.train(ranks, *run(97), *uneven, name="ddp")
    sharded = starter.train(ranks, *run(97), *uneven, SHARDED, name="sharded")
    check_trains_alike(ddp, sharded)
    dying = (*run(97, kill_at=8 * 7), *uneven, SHARDED)
    ended = starter.run(ranks, *dying, "run.name=killed")
    assert -signal.SIGKILL in ended.codes, ended.output
    shutil.copytree(starter.results("killed").folder, starter.results("elsewhere").folder)
    continued = starter.train(ranks, *dying, name="killed")
    assert [event["step"] for event in continued.events("resume")] == [5]
    assert continued.sha256 == sharded.sha256
    assert continued.timeless() == sharded.timeless()
    elsewhere = starter.train(ranks % 3 + 1, *dying, name="elsewhere")
    assert [event["step"] for event in elsewhere.events("resume")] == [5]
    check_trains_alike(ddp, elsewhere)


def test_an_optimizer_averages_shards_as_it_averages_whole_parameters(starter: Starter) -> None:
    own = (
        *("~optim.momentum", "~optim.nesterov", "~optim.fused", "~optim.weight_decay", "train.ema_decay=null"),
        *("optim._target_=tests.zoo.optimizers.Averaging", "schedule=constant", "schedule.warmup_steps=0"),
    )
    ddp = starter.train(2, *run(), *own, name="ddp")
    check_trains_alike(ddp, starter.train(2, *run(), *own, SHARDED, name="sharded"))


def test_a_strategy_is_a_class_of_its_kind_and_another_one_is_another_run(starter: Starter) -> None:
    ended = starter.run(1, *run(), "parallel._target_=phalanx.models.MLP", "run.name=r")
    assert ended.codes == [2]
    assert "parallel._target_=phalanx.models.MLP is no class derived from ParallelStrategy" in ended.output
    starter.train(1, *run(), name="one")
    ended = starter.run(1, *run(), FLAT, "run.name=one")
    assert ended.codes == [2]
    assert "parallel._target_" in ended.output


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (
            "+parallel.own_group=false",
            "As an argument of parallel._target_ type +parallel.args.own_group=…",
        ),
        ("+parallel.args.ours=false", "parallel.args.ours is no argument of Sharded"),
        ("+parallel.args.own_group=3", "parallel.args.own_group=3 does not fit: Sharded takes bool there"),
        ("parallel.bucket_mb=1", "parallel.bucket_mb=1.0 is set, and Sharded does not read it"),
        ("parallel.comm_hook=bf16", "parallel.comm_hook=bf16 is set, and Sharded does not read it"),
        (
            "+parallel.args.own_group=false train.steps=null train.epochs=1",  # whose last batch is one sample
            "The task, or the parallel strategy in the default process group, waits for other ranks in its forward",
        ),
    ],
)
def test_a_strategy_has_arguments_of_its_own_and_what_it_does_not_read_is_refused(
    starter: Starter, words: str, says: str
) -> None:
    ended = starter.run(2, *run(97), "optim.fused=false", SHARDED, *words.split())
    assert ended.codes == [2, 2], ended.output
    assert says in ended.output


@pytest.mark.parametrize("option", sorted(DDPStrategy.options))
def test_an_option_is_refused_where_it_is_set_and_the_strategy_does_not_read_it(option: str) -> None:
    ddp, sharded = compose([]).config, compose([SHARDED]).config
    builder = targets(ddp, foreign=False)
    key = f"parallel.{option}"
    value = other(key, getattr(ddp.parallel, option))
    for accepted in (sharded, with_value(ddp, key, value)):
        check_targets(accepted, builder)
    with pytest.raises(ConfigError, match=rf"^parallel\.{option}=\w.* is set, and Sharded does not read it"):
        check_targets(with_value(sharded, key, value), builder)

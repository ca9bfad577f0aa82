"""Whatever knob of DDP is turned, any number of ranks takes the steps that one rank takes."""

from collections.abc import Sequence

import pytest

from phalanx.compose.compose import compose
from phalanx.config.limits import check
from phalanx.exit.codes import ConfigError
from tests.compare_runs import distance, moved
from tests.ranks import Results, Starter
from tests.train.small_runs import planted

SGD = ("optim=sgd", "optim.lr=0.05", "train.precision=fp64", "train.steps=8")
BRANCHING = (
    "~model.inputs",
    "~model.hidden",
    "~model.classes",
    "~model.dropout",
    "model._target_=tests.train.faulty_parts.Branching",
)
WEIGHTED = ("task._target_=tests.train.faulty_parts.Weighted", "~task.classes", "~task.label_smoothing")


PLAIN: tuple[str, ...] = ()
CLIPPED = (*WEIGHTED, "train.clip_norm=0.1", "train.ema_decay=0.9")


def as_one_rank_does(starter: Starter, run: Sequence[str], *turned: tuple[int, str]) -> list[Results]:
    """Hold `run` on each number of ranks, with these knobs, to the weights that one rank without any comes to."""
    alone = starter.train(1, *run, name="alone")
    found = []
    for turn, (ranks, knobs) in enumerate(turned):
        found.append(starter.train(ranks, *run, *knobs.split(), name=f"turned{turn}"))
        assert distance(found[-1], alone) < 1e-13, (ranks, knobs)
    return [alone, *found]


@pytest.mark.parametrize(
    ("counting", "turned"),
    [
        (
            PLAIN,
            [
                (3, "parallel.bucket_mb=0.0001 parallel.find_unused=true train.micro_batch=2"),
                (2, "parallel.static_graph=true train.micro_batch=1"),
                (3, "parallel.static_graph=true parallel.bucket_mb=0.0001"),
            ],
        ),
        (WEIGHTED, [(2, "")]),
        (CLIPPED, [(3, "train.micro_batch=1")]),
    ],
    ids=["plain", "weighted", "clipped"],
)
def test_a_knob_changes_the_speed_and_not_the_steps(
    starter: Starter, counting: Sequence[str], turned: Sequence[tuple[int, str]]
) -> None:
    """Eight micro-batches are 3, 3 and 2 on three ranks; two of four stay for the last."""
    as_one_rank_does(starter, (*planted(), *SGD, *counting), *turned)


@pytest.mark.parametrize(
    ("counting", "turned"),
    [
        (PLAIN, [(2, ""), (3, "parallel.static_graph=true"), (2, "parallel.find_unused=true")]),
        (WEIGHTED, [(3, "")]),
    ],
    ids=["plain", "weighted"],
)
def test_ranks_without_a_sample_in_the_last_batch_take_part_with_nothing(
    starter: Starter, counting: Sequence[str], turned: Sequence[tuple[int, str]]
) -> None:
    """17 samples in batches of 8 leave one for the first rank alone."""
    run = (*planted(samples=17), *SGD, "train.steps=null", "train.epochs=1", *counting)
    for results in as_one_rank_does(starter, run, *turned):
        assert results.summary["steps"] == 3
        assert results.summary["samples"] == 17


def test_fewer_samples_than_ranks_train_all_the_same(starter: Starter) -> None:
    run = (*planted(samples=2), *SGD, "train.steps=null", "train.epochs=1")
    alone, shared = as_one_rank_does(starter, run, (3, ""))
    assert shared.timeless()[0]["accuracy"] == alone.timeless()[0]["accuracy"]


def test_parameters_that_take_part_in_some_steps_only_are_left_out_of_the_others(starter: Starter) -> None:
    """Momentum would move a parameter whose gradient is zero; one that has no gradient stays where it is."""
    run = (
        *(option for option in planted(samples=17) if not option.startswith("model")),
        "model=mlp",
        *BRANCHING,
        *SGD,
        "train.steps=null",
        "train.epochs=1",
        "train.global_batch=4",
        "parallel.find_unused=true",
    )
    as_one_rank_does(starter, run, (2, "train.micro_batch=1"), (3, ""))


def test_a_compressed_gradient_is_close_to_the_plain_one(starter: Starter) -> None:
    """In shares of the way that the plain run went."""
    run = (*planted(), "optim=sgd", "optim.lr=0.05", "train.steps=12")
    plain = starter.train(2, *run, "checkpoint.every=1", name="plain")
    way = moved(plain)
    for ranks, hook, tolerance in (
        (3, "bf16", 2e-2),
        (2, "fp16", 2e-3),
        (3, "powersgd parallel.powersgd_start=2", 0.6),
    ):
        hooked = starter.train(ranks, *run, *f"parallel.comm_hook={hook}".split(), name=hook[:4])
        assert 0 < distance(hooked, plain) < tolerance * way, hook


def test_sync_batchnorm_on_cpus_and_over_uneven_shares_is_refused(starter: Starter) -> None:
    ended = starter.run(2, *planted(), "parallel.sync_batchnorm=true", "train.steps=2")
    assert ended.codes == [2, 2]
    assert "parallel.sync_batchnorm=true needs GPUs" in ended.output
    composed = compose(["parallel.sync_batchnorm=true"])
    with pytest.raises(ConfigError, match=r"64 does not split evenly over 3 ranks\. Type train\.global_batch=66"):
        check(composed.config, 3)
    ended = starter.run(2, *planted(samples=17), "parallel.sync_batchnorm=true", "train.epochs=1")
    assert "the last batch has 1 samples. Type train.steps=2" in ended.output


def test_powersgd_on_channels_last_weights_is_refused_by_name(starter: Starter) -> None:
    ended = starter.run(2, "model=convnet", "parallel.comm_hook=powersgd", "train.steps=2")
    assert ended.codes == [2, 2]
    assert "cannot see conv2.weight as a matrix" in ended.output
    assert "Type train.channels_last=false" in ended.output

"""NCCL over all the GPUs of the machine."""

import signal

import pytest
import torch

from tests.compare_runs import distance, moved
from tests.gpu.launched import DETERMINISTIC, Gpus, timeless
from tests.train.small_runs import BATCH, planted

pytestmark = pytest.mark.multi_gpu

SGD = ("optim=sgd", "optim.lr=0.05", "train.steps=12", "checkpoint.every=1")


def all_gpus() -> int:
    return min(BATCH, torch.cuda.device_count())


def test_any_number_of_gpus_takes_the_same_steps(gpus: Gpus) -> None:
    """Short last batches included, which leave some GPUs without a sample."""
    run = (*planted(samples=17), *SGD, "train.steps=null", "train.epochs=2", "train.precision=fp64")
    alone = gpus.train(1, *run, name="alone")
    for name, knobs in {
        "plain": (),
        "buckets": ("parallel.bucket_mb=0.0001",),
        "static": ("parallel.static_graph=true", "train.micro_batch=1"),
        "unused": ("parallel.find_unused=true",),
    }.items():
        shared = gpus.train(all_gpus(), *run, *knobs, name=name)
        assert distance(shared, alone) < 1e-12, name


def test_digits_train_on_all_gpus(gpus: Gpus) -> None:
    results = gpus.train(all_gpus(), "experiment=digits", "train.epochs=3", name="run")
    assert results.summary["world_sizes"] == [all_gpus()]
    assert results.summary["eval"]["accuracy"] > 0.85


def test_compressed_gradients_are_close_to_plain_ones(gpus: Gpus) -> None:
    run = (*planted(), *SGD, "train.precision=fp32")
    plain = gpus.train(all_gpus(), *run, name="plain")
    powersgd = ("parallel.comm_hook=powersgd", "parallel.powersgd_start=2", "parallel.bucket_mb=0.0001")
    for name, tolerance, knobs in (
        ("bf16", 2e-2, ("parallel.comm_hook=bf16",)),
        ("fp16", 2e-3, ("parallel.comm_hook=fp16",)),
        ("powersgd", 0.6, powersgd),
    ):
        hooked = gpus.train(all_gpus(), *run, *knobs, name=name)
        assert 0 < distance(hooked, plain) < tolerance * moved(plain), name


@pytest.mark.parametrize("hook", ["none", "powersgd"])
def test_a_killed_rank_costs_nothing_but_time(gpus: Gpus, hook: str) -> None:
    """One loss is not finite, on the last rank alone; PowerSGD's memory is each rank's own."""
    rest = (
        "train.steps=12",
        "checkpoint.every=5",
        "train.precision=fp16",
        f"parallel.comm_hook={hook}",
        "parallel.powersgd_start=2",
        *DETERMINISTIC,
    )
    spoilt = [5 * BATCH + BATCH - 1]
    undisturbed = gpus.train(all_gpus(), *planted(spoilt=spoilt), *rest, name="undisturbed")
    assert [event["not_finite"] for event in undisturbed.events("skip")].count("loss") == 1
    run = (*planted(spoilt=spoilt, kill_at=8 * BATCH), *rest, "run.name=killed", "world.device=cuda")
    ended = gpus.run(all_gpus(), *run)
    assert -signal.SIGKILL in ended.codes, ended.output
    ended = gpus.run(all_gpus(), *run)
    assert set(ended.codes) == {0}, ended.output
    killed = gpus.results("killed")
    assert killed.sha256 == undisturbed.sha256
    assert timeless(killed) == timeless(undisturbed)


def test_sync_batchnorm_sees_the_whole_batch(gpus: Gpus) -> None:
    """So that two GPUs train the model that one trains."""
    model = (
        *(option for option in planted() if not option.startswith("model.")),
        "~model.inputs",
        "~model.hidden",
        "~model.classes",
        "~model.dropout",
        "model._target_=tests.train.faulty_parts.Normalised",
    )
    run = (*model, *SGD, "train.precision=fp64")
    alone = gpus.train(1, *run, name="alone")
    shared = gpus.train(2, *run, "parallel.sync_batchnorm=true", name="shared")
    apart = gpus.train(2, *run, name="apart")
    assert distance(shared, alone) < 1e-9
    assert distance(apart, alone) > 1e-6, "which two GPUs with statistics of their own do not"


def test_one_rank_without_a_gradient_ends_all_ranks_with_its_name(gpus: Gpus) -> None:
    """The others wait for it in NCCL's kernels, where no exception reaches them."""
    model = (
        *(option for option in planted() if not option.startswith("model.")),
        "~model.inputs",
        "~model.hidden",
        "~model.classes",
        "~model.dropout",
        "model._target_=tests.train.faulty_parts.Dying",
        "+model.alive=3",
        "+model.rank=1",
    )
    ended = gpus.run(all_gpus(), *model, "train.steps=8", "log.every=1", "world.device=cuda", "run.name=run")
    assert set(ended.codes) == {2}, ended.output
    assert ended.output.count("error: No gradient reached dead.weight, dead.bias: ") == 1

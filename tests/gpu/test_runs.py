"""Whole runs on one GPU, with and without NCCL."""

import json
import signal
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.gpu.launched import DETERMINISTIC, Gpus, timeless
from tests.ranks import ROOT, Results
from tests.train.small_runs import BATCH, planted

pytestmark = pytest.mark.gpu


def environment(results: Results) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((results.folder / "environment.json").read_text())
    return found


@pytest.mark.parametrize("launched", [False, True], ids=["python", "nccl_world_of_one"])
def test_digits_train_on_the_gpu_of_this_process(gpus: Gpus, launched: bool) -> None:
    results = gpus.train(1, "experiment=digits", "train.epochs=3", name="run", launched=launched)
    start = results.events("start")[0]
    capability = torch.cuda.get_device_capability(0)
    assert start["precision"] == ("bf16" if capability >= (8, 0) else "fp16" if capability >= (7, 0) else "fp32")
    assert start["device"] == "cuda"
    assert all(line["memory_gib"] > 0 for line in results.metrics("train"))
    assert results.summary["eval"]["accuracy"] > 0.85


def test_sums_and_counts_may_lie_on_the_host(gpus: Gpus) -> None:
    run = ("experiment=digits", "train.steps=20", "train.epochs=null", "eval.every=10", *DETERMINISTIC)
    plain, apart = (
        gpus.train(1, *run, *words, name=name, launched=False)
        for name, words in (("plain", ()), ("apart", ("task._target_=tests.zoo.tasks.OnTwoDevices",)))
    )
    assert apart.sha256 == plain.sha256
    assert apart.summary["eval"]["host"] == apart.summary["eval"]["accuracy"] == plain.summary["eval"]["accuracy"]


def test_the_articles_convnet_is_as_good_on_the_gpu_as_on_the_cpu(
    gpus: Gpus, capsys: pytest.CaptureFixture[str]
) -> None:
    """In float32, as in the article; prints the ratio of the times a step."""
    run = ("experiment=digits", "train.precision=fp32", "checkpoint.every=null", "log.every=20")
    runs = {
        "GPU": gpus.train(1, *run, name="gpu", launched=False),
        "CPU": gpus.on_cpu(*run, "train.threads=auto", name="cpu"),
    }
    accuracy = {where: results.summary["eval"]["accuracy"] for where, results in runs.items()}
    step_ms = {
        where: 1000 * statistics.median(line["step_time_s"] for line in results.metrics("train"))
        for where, results in runs.items()
    }
    with capsys.disabled():
        name = torch.cuda.get_device_name(0)
        print(
            f"\nConvNet, batch 64, fp32: a step takes {step_ms['CPU']:.2f} ms on the CPU and {step_ms['GPU']:.2f} ms",
            end="",
        )
        print(f" on {name}: {step_ms['CPU'] / step_ms['GPU']:.1f}x; accuracies {accuracy}")
    assert accuracy["GPU"] >= 0.96
    assert abs(accuracy["GPU"] - accuracy["CPU"]) <= 0.015


@pytest.mark.parametrize("precision", ["fp32", "auto", "fp16"])
def test_deterministic_runs_end_with_equal_bits(gpus: Gpus, precision: str) -> None:
    """Augmentation and dropout on; batches copied by the side stream; one run with workers that pin, one without."""
    run = ("experiment=digits", "train.epochs=2", "model.dropout=0.3", f"train.precision={precision}", *DETERMINISTIC)
    one = gpus.train(1, *run, name="one", launched=False)
    other = gpus.train(1, *run, "data.workers=2", name="other", launched=True)
    assert one.sha256 == other.sha256
    assert timeless(one) == timeless(other)


@pytest.mark.parametrize("precision", ["auto", "fp16"])
def test_a_killed_run_ends_with_the_same_bits(gpus: Gpus, precision: str) -> None:
    """Optimizer, loss scale, average and position through a checkpoint of device tensors; a skipped step amid."""
    rest = (
        "train.steps=12",
        "checkpoint.every=5",
        "model.dropout=0.3",
        "train.ema_decay=0.9",
        "train.clip_norm=1.0",
        f"train.precision={precision}",
        *DETERMINISTIC,
    )
    spoilt = [5 * BATCH + 1]
    undisturbed = gpus.train(1, *planted(spoilt=spoilt), *rest, name="undisturbed")
    run = (*planted(spoilt=spoilt, kill_at=8 * BATCH), *rest, "run.name=killed", "world.device=cuda")
    assert gpus.run(1, *run).codes == [-signal.SIGKILL]
    ended = gpus.run(1, *run)
    assert ended.codes == [0], ended.output
    killed = gpus.results("killed")
    assert killed.sha256 == undisturbed.sha256
    assert timeless(killed) == timeless(undisturbed)
    reasons = {event["not_finite"] for event in undisturbed.events("skip")}
    assert "loss" in reasons
    assert reasons <= ({"loss", "overflow"} if precision == "fp16" else {"loss"})


def test_a_compiled_model_takes_the_same_steps(gpus: Gpus) -> None:
    run = ("experiment=digits", "train.steps=20", "train.precision=fp32", "eval.every=null", "log.every=5")
    plain = gpus.train(1, *run, name="plain", launched=False)
    compiled = gpus.train(1, *run, "train.compile=true", name="compiled", launched=False)
    for one, other in zip(plain.metrics("train"), compiled.metrics("train"), strict=True):
        assert other["loss"] == pytest.approx(one["loss"], rel=2e-2)


def test_more_ranks_than_gpus_is_told_before_anything_is_done(gpus: Gpus) -> None:
    ranks = torch.cuda.device_count() + 1
    ended = gpus.run(ranks, *planted(), "world.device=cuda", "run.name=run")
    assert set(ended.codes) == {2}, ended.output
    assert f"--nproc_per_node={ranks - 1}" in ended.output
    assert "Traceback" not in ended.output
    assert not (gpus.folder / "runs").exists()


def test_bench_takes_the_same_steps_on_cpu_and_gpu_and_prints_the_ratio(tmp_path: Path) -> None:
    command = [
        sys.executable,
        str(ROOT / "phalanx"),
        "bench",
        "experiment=digits",
        "--steps",
        "60",
        "--turns",
        "2",
        "--json",
    ]
    for precision, tolerance in (("fp32", 0.001), ("auto", 0.05)):
        ended = subprocess.run(
            [*command, f"train.precision={precision}"], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert ended.returncode == 0, ended.stderr
        cpu, gpu = map(json.loads, ended.stdout.splitlines())
        assert (cpu["device"], gpu["device"], gpu["name"]) == ("cpu", "cuda", torch.cuda.get_device_name(0))
        assert gpu["speedup"] == pytest.approx(cpu["step_ms"] / gpu["step_ms"])
        assert f"(of {tolerance})" in " ".join(ended.stderr.split())

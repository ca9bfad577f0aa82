"""`phalanx bench` trains the same steps on each device, says how fast each is, and finds steps that are not the same."""

import json
import os
import re
import subprocess
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from phalanx.launch.commands.benchmark.comparison import Measured, difference, table
from phalanx.launch.commands.benchmark.device_run import DeviceRun
from phalanx.launch.commands.benchmark.weight_norms import weight_norms
from phalanx.train.loading.batch import Batch
from phalanx.train.tasks.classification import Classification
from phalanx.train.tasks.task import Ratio
from tests.ranks import QUIET, Nursery
from tests.warm_command import run_warm

STEPS = ("model=mlp", "model.hidden=[8]", "train.threads=1", "--steps", "12", "--turns", "1")


WEIGHTS, CHANGE = "the norm of the weights", "the norm of the weights' change"


class Unsteady(Classification):
    """Its loss is another one in each process."""

    def ratios(self, model: nn.Module, batch: Batch) -> Mapping[str, Ratio]:
        ratios = super().ratios(model, batch)
        by = 1 + os.getpid() % 1000 / 1000
        return {**ratios, "loss": Ratio(ratios["loss"].total * by, ratios["loss"].count)}


def bench(nursery: Nursery, folder: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    return run_warm(nursery, ["bench", *words, *STEPS], cwd=folder, env={**os.environ, **QUIET})


def test_what_is_not_there_is_said_and_the_rest_is_measured(nursery: Nursery, tmp_path: Path) -> None:
    found = bench(nursery, tmp_path, "--json")
    assert found.returncode == 0, found.stderr
    (row,) = map(json.loads, found.stdout.splitlines())
    assert (row["device"], row["precision"], row["speedup"]) == ("cpu", "fp32", 1.0)
    assert row["samples_per_s"] == pytest.approx(64 / row["step_ms"] * 1000, rel=0.2)
    assert "there is no GPU here" in " ".join(found.stderr.split())
    assert "cuda is not measured" in " ".join(found.stderr.split())
    assert sorted(path.name for path in tmp_path.iterdir()) == []
    for words, told in (
        (("--devices", "cuda"), "Type --devices cpu, or the same on a machine that has one"),
        (("--devices", "gpu"), "gpu is no kind of device. Type cpu, cuda or both"),
        (("--devices", "cpu", "optim.lrr=1"), "optim.lrr is not a key"),
    ):
        found = bench(nursery, tmp_path, *words)
        assert (found.returncode, found.stdout) == (2, "")
        assert told in " ".join(found.stderr.split())


def test_steps_that_are_not_the_same_are_found(nursery: Nursery, tmp_path: Path) -> None:
    task = f"task._target_={Unsteady.__module__}.{Unsteady.__qualname__}"
    alike = bench(nursery, tmp_path, "--devices", "cpu,cpu")
    assert alike.returncode == 0, alike.stderr
    assert "cpu and cpu took the same 10 steps, within 0 (of 0.001)" in " ".join(alike.stderr.split())
    apart = bench(nursery, tmp_path, "--devices", "cpu,cpu", task)
    assert apart.returncode == 1
    assert re.search(
        r"(the loss|the gradient's norm) of step \d+ is \S+ on cpu and \S+ on cpu", " ".join(apart.stderr.split())
    )


def run(device: str, precision: str, *rows: tuple[float | None, float, float]) -> DeviceRun:
    """Of each row the loss, the norm and the seconds of a step; 64 samples."""
    lines = [
        {"step": step, "loss": loss, "grad_norm": norm, "step_time_s": seconds, "samples_per_s": 64 / seconds}
        for step, (loss, norm, seconds) in enumerate(rows, 1)
    ]
    return DeviceRun(device, precision, lines, {WEIGHTS: 5.0, CHANGE: 0.25})


def test_the_coarser_precision_says_what_rounding_explains() -> None:
    cpu = run("C", "fp32", (2.0, 1.0, 9.0), (1.0, 4.0, 1.0))
    gpu = run("G", "bf16", (2.0, 1.0, 9.0), (1.01, 4.16, 0.25))
    found = difference(cpu, gpu)
    assert (found.number, found.step, found.is_rounding) == ("the gradient's norm", 2, True)
    assert found.relative == pytest.approx(0.04)
    precise = difference(cpu, run("G", "fp32", (2.0, 1.0, 9.0), (1.01, 4.0, 0.25)))
    assert not precise.is_rounding
    assert precise.told(("cpu", "cuda")) == (
        "the loss of step 2 is 1 on cpu and 1.01 on cuda, 0.01 apart, where their precisions explain 0.001"
    )
    lost = difference(cpu, run("G", "bf16", (None, 1.0, 9.0), (1.0, 4.0, 0.25)))
    assert not lost.is_rounding
    assert lost.told(("cpu", "cuda")).startswith("the loss of step 1 is 2 on cpu and not finite on cuda")
    rows = [
        Measured(name, each, [each, each]).row(1.0) for name, each in (("cpu", cpu), ("cuda", gpu))
    ]  # the first window of a turn warms up
    assert [row["speedup"] for row in rows] == [1.0, 4.0]
    assert table(rows).splitlines()[2].split() == ["cuda", "G", "bf16", "250.000", "ms", "256", "4.00x", "as", "fast"]


@pytest.mark.parametrize("number", [WEIGHTS, CHANGE])
def test_weights_that_went_elsewhere_are_found(number: str) -> None:
    cpu = run("C", "fp32", (2.0, 1.0, 9.0), (1.0, 4.0, 1.0))
    found = difference(cpu, replace(cpu, norms={**cpu.norms, number: cpu.norms[number] * 1.01}))  # type: ignore[operator]
    assert (found.number, found.step, found.is_rounding) == (number, 2, False)
    assert not difference(cpu, replace(cpu, norms={**cpu.norms, number: None})).is_rounding


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_norms_are_those_of_all_weights_and_of_their_change(tmp_path: Path, dtype: torch.dtype) -> None:
    before = {"a": torch.tensor([[3.0, 1.0]], dtype=dtype), "b": torch.tensor(2.0, dtype=dtype), "n": torch.tensor(7)}
    after = {"b": torch.tensor(4.0, dtype=dtype), "a": torch.tensor([[3.0, 0.0]], dtype=dtype), "n": torch.tensor(9)}
    for name, weights in (("before", before), ("after", after)):
        save_file(weights, tmp_path / name)
    assert weight_norms(tmp_path / "before", tmp_path / "after") == {WEIGHTS: 5.0, CHANGE: pytest.approx(5**0.5)}
    save_file({**after, "b": torch.tensor(float("nan"), dtype=dtype)}, tmp_path / "after")
    assert weight_norms(tmp_path / "before", tmp_path / "after") == {WEIGHTS: None, CHANGE: None}

"""A start pays for torch's compiler once something compiles, and not before."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.ranks import QUIET, ROOT, SMALL


@pytest.fixture(scope="module")
def told() -> dict[str, Any]:
    words = [sys.executable, "-m", "tests.train.engine.dynamo_facts"]
    ran = subprocess.run(words, cwd=ROOT, env={**os.environ, **QUIET}, check=True, stdout=subprocess.PIPE)
    found: dict[str, Any] = json.loads(ran.stdout)
    return found


@pytest.mark.xdist_group("dynamo")
def test_optimizers_import_no_compiler_and_train_as_they_do_with_it(told: dict[str, Any]) -> None:
    assert {"Adam", "AdamW", "SGD", "RMSprop", "RAdam"} <= {*told["trained"]}
    assert told["imported"] == []
    assert told["trained otherwise"] == []
    assert {"Optimizer.zero_grad", "Optimizer.state_dict", "Optimizer.add_param_group"} <= {*told["called"]}


@pytest.mark.xdist_group("dynamo")
def test_once_something_compiles_optimizers_are_as_torch_has_them(told: dict[str, Any]) -> None:
    assert {"SGD.step", "Adam.step"} <= {*told["steps"]}
    assert told["steps still"] == []
    assert told["called still"] == []
    assert told["compiled"] == [0.0, 0.0, 0.0]


@pytest.mark.xdist_group("dynamo")
def test_steps_of_a_torch_that_makes_them_otherwise_are_left_alone(told: dict[str, Any]) -> None:
    assert told["steps of another version"] == []


def test_a_plain_run_imports_no_compiler(tmp_path: Path) -> None:
    run = [f"run.root={tmp_path}", "run.name=plain", "model=mlp", "train.steps=2", *SMALL]
    words = [sys.executable, "-X", "importtime", str(ROOT / "train" / "main.py"), *run]
    ran = subprocess.run(words, env={**os.environ, **QUIET}, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    imported = {line.rpartition("|")[2].strip() for line in ran.stderr.splitlines()}
    assert "torch.optim" in imported
    assert not imported & {"torch._dynamo", "sympy", "torch._inductor"}

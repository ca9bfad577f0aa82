"""`phalanx run` on the GPUs that are here."""

import os
from pathlib import Path

import pytest
import torch

from phalanx.launch.host.machine import this_machine
from tests.launch.command import Launcher
from tests.ranks import SMALL

pytestmark = pytest.mark.gpu


def test_gpus_are_those_that_torch_sees() -> None:
    """In any order: CUDA's own puts the fastest first."""
    seen = [f"GPU-{torch.cuda.get_device_properties(number).uuid}" for number in range(torch.cuda.device_count())]
    assert sorted(gpu.uuid for gpu in this_machine(os.environ, wants_gpus=True).gpus) == sorted(seen)


def test_there_is_a_rank_on_every_gpu(tmp_path: Path) -> None:
    words = (*SMALL, "model=mlp", "train.steps=5", "run.name=r")
    visible = {"CUDA_VISIBLE_DEVICES": os.environ.get("CUDA_VISIBLE_DEVICES")}
    code, output = Launcher(tmp_path, "gpus").run("run", *words, environ=visible)
    assert code == 0, output
    assert f"ranks {torch.cuda.device_count()}  device cuda" in output

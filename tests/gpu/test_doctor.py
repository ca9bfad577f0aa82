"""`phalanx doctor` on the GPUs that are here."""

import os
from pathlib import Path

import pytest
import torch

from phalanx.launch.doctor.checks.gpu.copies import HostToDevice
from phalanx.launch.doctor.checks.gpu.matmul import Matmul
from phalanx.launch.doctor.peaks import peak_of
from tests.launch.command import Launcher
from tests.launch.doctor.findings import findings, ranks_on

pytestmark = pytest.mark.gpu


def test_rates_are_below_what_the_card_can_do_and_above_nothing() -> None:
    measured = Matmul().measure(ranks_on("a"))
    assert measured is not None
    peak = peak_of(torch.cuda.get_device_name(0))
    for precision, rate in measured["rates"].items():
        most = getattr(peak, precision, None) or 1e5
        assert 1 < rate <= 1.05 * most, precision
    copied = HostToDevice().measure(ranks_on("a"))
    assert copied is not None
    assert 0.5 < copied["rate"] < 1000


@pytest.mark.parametrize("ranks", [1, pytest.param(2, marks=pytest.mark.multi_gpu)])
def test_every_line_about_gpus_is_measured(ranks: int, tmp_path: Path) -> None:
    visible = {"CUDA_VISIBLE_DEVICES": os.environ.get("CUDA_VISIBLE_DEVICES")}
    _, output = Launcher(tmp_path, "doctor").run("doctor", "-n", str(ranks), "--json", environ=visible)
    found = findings(output)
    for name in ("CUDA and driver", "GPUs", "GPU links", "matmul bf16", "matmul tf32", "host to device"):
        assert found[name]["verdict"] != "not checked", found[name]
    assert found["ranks"]["verdict"] == "pass", output
    if ranks > 1:
        assert "nccl" in found["all-reduce"]["measured"]

"""GPUs are counted without torch, each belongs to one run at a time, and who holds it is said."""

import importlib
import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import threading
import uuid
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from phalanx.config.schema import Backend, Device, WorldConfig
from phalanx.exit.codes import ConfigError
from phalanx.exit.rank_env import RankEnv
from phalanx.launch.host.machine import this_machine
from phalanx.system import nvml as driver
from phalanx.system.gpu_visibility import driver_fault
from phalanx.train.distributed.rendezvous import _device
from tests.launch.command import Launcher, marked
from tests.ranks import ROOT, Starter, until
from tests.zoo.stand_in_nvml import (
    NVML_ERROR_DRIVER_NOT_LOADED,
    NVML_ERROR_GPU_IS_LOST,
    NVML_ERROR_LIB_RM_VERSION_MISMATCH,
    NVML_ERROR_LIBRARY_NOT_FOUND,
    NVML_ERROR_NO_PERMISSION,
    NVML_ERROR_NOT_SUPPORTED,
)

MIB = 2**20
HOLDS = "tell('gpus', os.environ['CUDA_VISIBLE_DEVICES'])\nhear()\nsys.exit(7)"


@pytest.fixture
def nvml(tmp_path: Path) -> Path:
    """A folder for PYTHONPATH with a pynvml that knows four GPUs; what it answers stands in a file beside it."""
    folder = tmp_path / "nvml"
    folder.mkdir()
    shutil.copy(ROOT / "tests" / "zoo" / "stand_in_nvml.py", folder / "pynvml.py")
    knows(folder, *four("a"))
    return folder


def knows(nvml: Path, *gpus: Mapping[str, Any] | int, init: int = 0) -> None:
    """It answers that there are these GPUs, and `init` when it is asked to begin; a negative number is an error."""
    (nvml / "nvml.json").write_text(json.dumps({"init": init, "gpus": gpus}))


def four(last: str) -> list[dict[str, Any]]:
    return [{"uuid": f"GPU-{n}{n}-{last}", "bus": f"00000000:0{n}:00.0"} for n in range(4)]


@pytest.fixture
def gpus(nvml: Path) -> list[str]:
    """The UUIDs of GPUs that no other test of this machine claims."""
    known = four(uuid.uuid4().hex)
    knows(nvml, *known)
    return [gpu["uuid"] for gpu in known]


def beside(nvml: Path, visible: str | None = None) -> dict[str, str | None]:
    return {"PYTHONPATH": f"{nvml}{os.pathsep}{ROOT}", "CUDA_VISIBLE_DEVICES": visible}


@pytest.fixture
def within(nvml: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """It is what this process asks, too."""
    monkeypatch.delitem(sys.modules, "pynvml", raising=False)
    monkeypatch.syspath_prepend(nvml)
    monkeypatch.setitem(sys.modules, "pynvml", importlib.import_module("pynvml"))
    return nvml


def seen(visible: str | None = None) -> list[str]:
    environ = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    return [gpu.uuid for gpu in this_machine(environ, wants_gpus=True).gpus]


@pytest.mark.parametrize(
    ("visible", "expected"),
    [
        (None, ["GPU-00-a", "GPU-11-a", "GPU-22-a", "GPU-33-a"]),
        ("2,0", ["GPU-22-a", "GPU-00-a"]),
        ("GPU-3", ["GPU-33-a"]),
        ("1, -1, 0", ["GPU-11-a"]),
        ("-1", []),
        ("", []),
    ],
)
def test_gpus_are_those_that_cuda_would_show(within: Path, visible: str | None, expected: list[str]) -> None:
    assert seen(visible) == expected


@pytest.mark.parametrize("visible", ["4", "GPU-", "0,0", "GPU-9", "zero"])
def test_a_gpu_that_is_not_there_is_an_error(within: Path, visible: str) -> None:
    with pytest.raises(ConfigError, match=rf"^CUDA_VISIBLE_DEVICES={visible} names .* This machine has 4, .*GPU-33-a"):
        seen(visible)


def test_a_gpu_in_slices_counts_as_its_slices(within: Path) -> None:
    first, second, *_ = four("a")
    knows(within, {**first, "slices": ["MIG-a", None, "MIG-b"]}, {**second, "slices": None})
    assert seen() == ["MIG-a", "MIG-b", "GPU-11-a"]
    assert seen("MIG-b") == ["MIG-b"]


def test_a_gpu_that_the_control_group_keeps_from_us_is_none_of_ours(within: Path) -> None:
    first, second, *_ = four("a")
    knows(within, first, -NVML_ERROR_NO_PERMISSION, second)
    assert seen() == ["GPU-00-a", "GPU-11-a"]


@pytest.mark.parametrize(
    ("gpus", "init", "answer"),
    [
        ([], -NVML_ERROR_LIB_RM_VERSION_MISMATCH, "NVML says 'Driver/library version mismatch'"),
        ([-NVML_ERROR_GPU_IS_LOST], 0, "NVML says 'GPU is lost'"),
        ([], 0, "NVML lists no GPU that may be used from here"),
    ],
)
def test_a_driver_that_does_not_answer_is_an_error_and_no_machine_without_gpus(
    launcher: Launcher, nvml: Path, gpus: list[int], init: int, answer: str
) -> None:
    knows(nvml, *gpus, init=init)
    ended, output = launcher.run("run", "--dry-run", environ=beside(nvml))
    assert ended == 2
    assert f"The GPUs of this machine cannot be counted: {answer}. See what nvidia-smi says; " in output
    assert "Type CUDA_VISIBLE_DEVICES= before" in output
    assert output.count("\n") == 1


@pytest.mark.parametrize("error", [NVML_ERROR_LIBRARY_NOT_FOUND, NVML_ERROR_DRIVER_NOT_LOADED])
def test_a_machine_has_a_driver_where_its_device_file_says_so(
    within: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    """Then no GPU is no answer. A machine without a driver is one without GPUs."""
    knows(within, init=-error)
    monkeypatch.setattr(driver, "PCI", tmp_path / "pci")
    monkeypatch.setattr(driver, "CONTROL", tmp_path / "nvidiactl")
    assert seen() == []
    assert driver_fault({}) is None
    (tmp_path / "nvidiactl").touch()
    with pytest.raises(ConfigError, match=rf"cannot be counted: NVML says 'error {error}'"):
        seen()
    assert seen("") == [], "whom CUDA_VISIBLE_DEVICES hides nobody asks for"
    assert driver_fault({}) == f"NVML says 'error {error}'"
    assert driver_fault({"CUDA_VISIBLE_DEVICES": ""}) is None
    monkeypatch.setitem(sys.modules, "pynvml", None)
    with pytest.raises(ConfigError, match="type pip install nvidia-ml-py"):
        seen()


def test_a_gpu_without_its_driver_s_module_is_an_error(
    within: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after an update of the kernel, where nothing has made the device file."""
    knows(within, init=-NVML_ERROR_DRIVER_NOT_LOADED)
    device = tmp_path / "pci" / "0000:01:00.0"
    device.mkdir(parents=True)
    (device / "vendor").write_text("0x8086\n")
    (device / "class").write_text("0x030200\n")
    monkeypatch.setattr(driver, "PCI", tmp_path / "pci")
    assert seen() == []
    (device / "vendor").write_text("0x10de\n")
    with pytest.raises(ConfigError, match="cannot be counted"):
        seen()


def test_a_rank_does_not_train_on_the_cpu_beside_gpus_that_cannot_be_asked_for(
    within: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody counted them before a plain torchrun. On a GPU, torch would see it and nobody ask."""
    knows(within, init=-NVML_ERROR_LIB_RM_VERSION_MISMATCH)
    monkeypatch.delenv("PHALANX_GPUS", raising=False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    alone = RankEnv.from_environment({})
    with pytest.raises(ConfigError, match="cannot be asked for GPUs: NVML says 'Driver/library version mismatch'"):
        _device(alone, WorldConfig(device=Device.auto, backend=Backend.auto, timeout_s=1.0))
    on_cpu = WorldConfig(device=Device.cpu, backend=Backend.auto, timeout_s=1.0)
    assert _device(alone, on_cpu).type == "cpu"


def test_a_driver_that_never_answers_is_an_error(within: Path) -> None:
    over = threading.Event()
    with pytest.raises(driver.DriverError, match="has not answered for 0 s"):
        driver.ask(lambda nvml: over.wait(), answer_s=0.01)
    over.set()


def test_each_run_has_gpus_of_its_own_until_it_ends(launcher: Launcher, nvml: Path, gpus: list[str]) -> None:
    first = launcher.start("run", "-n", "3", body=HOLDS, environ=beside(nvml))
    first.ready(3)
    assert first.told("gpus", 0) == ",".join(gpus[:3])
    second = launcher.start("run", body=HOLDS, environ=beside(nvml))  # what is free
    second.ready(1)
    assert second.told("gpus", 0) == gpus[3]
    code, output = launcher.run("run", "-n", "2", environ=beside(nvml, "3,2"))
    assert code == 2
    assert output.startswith("error: 2 GPUs are needed and 0 free: ")
    assert f"process {second.process.pid} holds {gpus[3]}" in output
    assert f"process {first.process.pid} holds {gpus[2]}" in output
    assert output.count("\n") == 1
    for run, said in ((first, ""), (second, "phalanx: training on 1 of 4 GPUs, for process ")):
        run.process.terminate()
        code, output = run.wait()
        assert code == 7
        assert output.startswith(said)
    code, output = launcher.run("run", "--dry-run", environ=beside(nvml))
    assert f"CUDA_VISIBLE_DEVICES={','.join(gpus)} " in output
    assert "PHALANX_GPUS=4 " in output, "ranks learn that they were given GPUs"


CLAIMS = """import os, sys
from phalanx.launch.host.gpu_locks import lock_gpus
from phalanx.launch.host.machine import Gpu
if os.geteuid() == 0:
    os.setgid(int(sys.argv[2]))
    os.setuid(int(sys.argv[2]))
with lock_gpus([Gpu(sys.argv[1], 0, False)], 1, {}):
    print("locked", flush=True)
    sys.stdin.read()"""


def test_a_claim_holds_for_all_users(gpus: list[str]) -> None:
    """Whose temporary files are elsewhere and whose umask shuts others out."""

    def start(user: int) -> Any:
        return subprocess.Popen(
            [sys.executable, "-c", CLAIMS, gpus[0], str(user)],
            env={"PYTHONPATH": str(ROOT), "TMPDIR": "/nonexistent"},
            umask=0o077,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    with start(65534) as first:
        assert first.stdout.readline() == "locked\n", first.stderr.read()
        with start(65533) as second:
            output, errors = second.communicate(timeout=60)
        assert (second.returncode, output) == (1, "")
        assert f"process {first.pid} holds {gpus[0]} (" in errors
        first.stdin.close()
    with start(65533) as second:
        assert second.communicate(timeout=60) == ("locked\n", "")


def test_of_two_runs_that_start_together_one_has_all_it_needs(launcher: Launcher, nvml: Path, gpus: list[str]) -> None:
    """Neither waits for what the other has taken already."""
    with socket.socket(socket.AF_UNIX) as turn, ExitStack() as waiting:
        until(partial(bound, turn, "\0phalanx-gpu-turn"))
        turn.listen()
        both = [launcher.start("run", "-n", "4", body="sys.exit(7)", environ=beside(nvml)) for _ in range(2)]
        missing = {run.process.pid for run in both}
        while missing:
            asker = waiting.enter_context(turn.accept()[0])
            missing -= {struct.unpack("3i", asker.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]}
    (first, _), (second, output) = sorted((run.wait() for run in both), reverse=True)
    assert (first, second) == (7, 2)
    assert "error: 4 GPUs are needed and 0 free" in output


def bound(ours: socket.socket, name: str) -> bool:
    """Once nobody else has it: other tests on this machine may."""
    with suppress(OSError):
        ours.bind(name)
        return True
    return False


def test_a_killed_launcher_holds_its_gpus_until_its_ranks_are_gone(
    launcher: Launcher, nvml: Path, gpus: list[str]
) -> None:
    first = launcher.start("run", "-n", "4", body="hear()\nos.open(here / 'end', os.O_RDONLY)", environ=beside(nvml))
    os.mkfifo(first.here / "end")
    first.ready(4)
    first.process.kill()
    first.process.wait()
    code, output = launcher.run("run", "--dry-run", environ=beside(nvml))
    assert code == 2, "ranks that save still use their GPUs"
    assert f"process {first.process.pid} holds {gpus[0]} (it is gone, its ranks are not yet)" in output
    let_go = os.open(first.here / "end", os.O_RDWR)  # whoever waits to read it may go on
    until(lambda: not marked(launcher.mark))
    os.close(let_go)
    assert launcher.run("run", "--dry-run", environ=beside(nvml))[0] == 0


def test_gpus_that_other_programs_use_are_not_free(launcher: Launcher, nvml: Path, gpus: list[str]) -> None:
    """Such as a plain torchrun of whomever, or one in a container, of which only the memory is seen."""
    named = [{"uuid": gpu, "bus": "00000000:00:00.0"} for gpu in gpus]
    use: list[dict[str, Any]] = [
        {"programs": [(os.getpid(), 70000 * MIB)], "used": 70001 * MIB},
        {"used": 70002 * MIB},
        {"used": 300 * MIB, "old": True},
        {"used": -NVML_ERROR_NOT_SUPPORTED, "programs": -NVML_ERROR_NOT_SUPPORTED},
    ]
    knows(nvml, *({**gpu, **used} for gpu, used in zip(named, use, strict=True)))
    code, output = launcher.run("run", "--dry-run", environ=beside(nvml))
    assert (code, f"CUDA_VISIBLE_DEVICES={gpus[2]},{gpus[3]} " in output) == (0, True)
    assert output.startswith(
        f"phalanx: training on 2 of 4 GPUs, for process {os.getpid()} uses 70000 MiB of {gpus[0]} ("
    )
    assert f"; a program that cannot be seen from here has 70002 MiB of {gpus[1]}\n" in output
    code, output = launcher.run("run", "-n", "3", environ=beside(nvml))
    assert code == 2
    assert output.startswith("error: 3 GPUs are needed and 2 free: process ")
    assert "type CUDA_VISIBLE_DEVICES=… before the command to share one with such a program" in output
    code, output = launcher.run("run", "--dry-run", environ=beside(nvml, "0"))
    assert (code, f"CUDA_VISIBLE_DEVICES={gpus[0]} " in output) == (0, True)
    assert "CUDA_VISIBLE_DEVICES names it, so it is used beside" in output
    knows(nvml, *({**gpu, **use[3]} for gpu in named))
    assert launcher.run("run", "--dry-run", "-n", "4", environ=beside(nvml))[0] == 0


def test_ranks_that_see_none_of_the_gpus_they_were_given_say_why(starter: Starter) -> None:
    """Rather than train on the CPU while they hold the GPUs, as with a torch without CUDA or an old driver."""
    ended = starter.run(1, environ={"PHALANX_GPUS": "2"})
    assert ended.codes == [2]
    assert ended.output.startswith("error: The launcher gave the ranks of this machine 2 GPUs, and torch sees none: ")
    assert ended.output.count("\n") == 1
    assert starter.run(1, "world.device=cpu", "train.steps=1", environ={"PHALANX_GPUS": "1"}).codes == [0]


def test_more_ranks_than_gpus_is_an_error(launcher: Launcher, nvml: Path) -> None:
    code, output = launcher.run("run", "-n", "5", environ=beside(nvml))
    assert code == 2
    assert output.startswith("error: 5 ranks were asked for, one a GPU, and there are 4 GPUs to use. Type -n 4, or ")


def test_ranks_on_the_cpu_claim_no_gpu(launcher: Launcher, nvml: Path, tmp_path: Path) -> None:
    """Whether the device is typed or an experiment's."""
    (tmp_path / "experiment").mkdir()
    mine = "# @package _global_\nworld: {device: cpu}\n"
    (tmp_path / "experiment" / "mine.yaml").write_text(mine)
    for words in (["world.device=cpu"], [f"--config-dir={tmp_path}", "experiment=mine"]):
        _, output = launcher.run("run", "--dry-run", "-n", "5", *words, environ=beside(nvml))
        assert "--ranks=5" in output
        assert "CUDA_VISIBLE_DEVICES" not in output


def test_slices_serve_one_rank(launcher: Launcher, nvml: Path) -> None:
    knows(nvml, {**four("a")[0], "slices": ["MIG-a", "MIG-b"]})
    code, output = launcher.run("run", "--dry-run", "-n", "2", environ=beside(nvml))
    assert (code, "Type -n 1" in output) == (2, True)
    assert "--ranks=1 " in launcher.run("run", "--dry-run", environ=beside(nvml))[1]

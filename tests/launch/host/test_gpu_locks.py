"""GPUs are counted without torch, each belongs to one run at a time, and who holds it is said."""

import os
import socket
import struct
import subprocess
import sys
import uuid
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from phalanx.exit.codes import ConfigError
from phalanx.launch.host.machine import look
from tests.launch.command import Launcher, marked
from tests.ranks import ROOT, Starter, until

SMI = """#!/bin/sh
case "$1" in
  --query-gpu=uuid,memory.used) cat "{folder}/memory" ;;
  --query-gpu=*) cat "{folder}/gpus" ;;
  --query-compute-apps=*) cat "{folder}/programs" ;;
  -L) cat "{folder}/slices" ;;
esac
exit $(cat "{folder}/code")
"""
HOLDS = "tell('gpus', os.environ['CUDA_VISIBLE_DEVICES'])\nhear()\nsys.exit(7)"


@pytest.fixture
def smi(tmp_path: Path) -> Path:
    """A folder for PATH with an nvidia-smi that knows four GPUs; what it answers stands in files beside it."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "nvidia-smi").write_text(SMI.format(folder=folder))
    (folder / "nvidia-smi").chmod(0o700)
    (folder / "code").write_text("0")
    for nothing in ("memory", "programs"):
        (folder / nothing).touch()
    known(folder, "a")
    return folder


def known(smi: Path, last: str) -> None:
    (smi / "gpus").write_text("".join(f"GPU-{n}{n}-{last}, 00000000:0{n}:00.0, [N/A]\n" for n in range(4)))


@pytest.fixture
def gpus(smi: Path) -> list[str]:
    """The UUIDs of GPUs that no other test of this machine claims."""
    last = uuid.uuid4().hex
    known(smi, last)
    return [f"GPU-{n}{n}-{last}" for n in range(4)]


def beside(smi: Path, visible: str | None = None) -> dict[str, str | None]:
    return {"PATH": f"{smi}{os.pathsep}{os.environ['PATH']}", "CUDA_VISIBLE_DEVICES": visible}


def seen(smi: Path, monkeypatch: pytest.MonkeyPatch, visible: str | None = None) -> list[str]:
    monkeypatch.setenv("PATH", f"{smi}{os.pathsep}{os.environ['PATH']}")
    environ = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    return [gpu.uuid for gpu in look(environ, wants_gpus=True).gpus]


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
def test_gpus_are_those_that_cuda_would_show(
    smi: Path, monkeypatch: pytest.MonkeyPatch, visible: str | None, expected: list[str]
) -> None:
    assert seen(smi, monkeypatch, visible) == expected


@pytest.mark.parametrize("visible", ["4", "GPU-", "0,0", "GPU-9", "zero"])
def test_a_gpu_that_is_not_there_is_an_error(smi: Path, monkeypatch: pytest.MonkeyPatch, visible: str) -> None:
    with pytest.raises(ConfigError, match=rf"^CUDA_VISIBLE_DEVICES={visible} names .* This machine has 4, .*GPU-33-a"):
        seen(smi, monkeypatch, visible)


def test_a_gpu_in_slices_counts_as_its_slices(smi: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (smi / "gpus").write_text("GPU-0, 00000000:01:00.0, Enabled\nGPU-1, 00000000:02:00.0, Disabled\n")
    (smi / "slices").write_text(
        "GPU 0: A100 (UUID: GPU-0)\n  MIG 3g.20gb Device 0: (UUID: MIG-a)\n  MIG 3g.20gb Device 1: (UUID: MIG-b)\n"
        "GPU 1: A100 (UUID: GPU-1)\n"
    )
    assert seen(smi, monkeypatch) == ["MIG-a", "MIG-b", "GPU-1"]


@pytest.mark.parametrize(("code", "answer"), [("9", "NVIDIA-SMI has failed\n"), ("0", "No devices were found\n")])
def test_a_driver_that_does_not_answer_is_an_error_and_no_machine_without_gpus(
    launcher: Launcher, smi: Path, code: str, answer: str
) -> None:
    (smi / "gpus").write_text(answer)
    (smi / "code").write_text(code)
    ended, output = launcher.run("run", "--dry-run", environ=beside(smi))
    assert ended == 2
    assert answer.strip() in output
    assert "Type CUDA_VISIBLE_DEVICES= before" in output
    assert output.count("\n") == 1


def test_each_run_has_gpus_of_its_own_until_it_ends(launcher: Launcher, smi: Path, gpus: list[str]) -> None:
    first = launcher.start("run", "-n", "3", body=HOLDS, environ=beside(smi))
    first.ready(3)
    assert first.told("gpus", 0) == ",".join(gpus[:3])
    second = launcher.start("run", body=HOLDS, environ=beside(smi))  # what is free
    second.ready(1)
    assert second.told("gpus", 0) == gpus[3]
    code, output = launcher.run("run", "-n", "2", environ=beside(smi, "3,2"))
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
    code, output = launcher.run("run", "--dry-run", environ=beside(smi))
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


def test_of_two_runs_that_start_together_one_has_all_it_needs(launcher: Launcher, smi: Path, gpus: list[str]) -> None:
    """Neither waits for what the other has taken already."""
    with socket.socket(socket.AF_UNIX) as turn, ExitStack() as waiting:
        until(partial(bound, turn, "\0phalanx-gpu-turn"))
        turn.listen()
        both = [launcher.start("run", "-n", "4", body="sys.exit(7)", environ=beside(smi)) for _ in range(2)]
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
    launcher: Launcher, smi: Path, gpus: list[str]
) -> None:
    first = launcher.start("run", "-n", "4", body="hear()\nos.open(here / 'end', os.O_RDONLY)", environ=beside(smi))
    os.mkfifo(first.here / "end")
    first.ready(4)
    first.process.kill()
    first.process.wait()
    code, output = launcher.run("run", "--dry-run", environ=beside(smi))
    assert code == 2, "ranks that save still use their GPUs"
    assert f"process {first.process.pid} holds {gpus[0]} (it is gone, its ranks are not yet)" in output
    let_go = os.open(first.here / "end", os.O_RDWR)  # whoever waits to read it may go on
    until(lambda: not marked(launcher.mark))
    os.close(let_go)
    assert launcher.run("run", "--dry-run", environ=beside(smi))[0] == 0


def test_gpus_that_other_programs_use_are_not_free(launcher: Launcher, smi: Path, gpus: list[str]) -> None:
    """Such as a plain torchrun of whomever, or one in a container, of which only the memory is seen."""
    (smi / "programs").write_text(f"{gpus[0]}, {os.getpid()}, 70000\n")
    (smi / "memory").write_text(f"{gpus[0]}, 70001\n{gpus[1]}, 70002\n{gpus[2]}, 300\n{gpus[3]}, [N/A]\n")
    code, output = launcher.run("run", "--dry-run", environ=beside(smi))
    assert (code, f"CUDA_VISIBLE_DEVICES={gpus[2]},{gpus[3]} " in output) == (0, True)
    assert output.startswith(
        f"phalanx: training on 2 of 4 GPUs, for process {os.getpid()} uses 70000 MiB of {gpus[0]} ("
    )
    assert f"; a program that cannot be seen from here has 70002 MiB of {gpus[1]}\n" in output
    code, output = launcher.run("run", "-n", "3", environ=beside(smi))
    assert code == 2
    assert output.startswith("error: 3 GPUs are needed and 2 free: process ")
    assert "type CUDA_VISIBLE_DEVICES=… before the command to share one with such a program" in output
    code, output = launcher.run("run", "--dry-run", environ=beside(smi, "0"))
    assert (code, f"CUDA_VISIBLE_DEVICES={gpus[0]} " in output) == (0, True)
    assert "CUDA_VISIBLE_DEVICES names it, so it is used beside" in output
    for silent in ("memory", "programs"):
        (smi / silent).write_text("Field is not valid\n")
    assert launcher.run("run", "--dry-run", "-n", "4", environ=beside(smi))[0] == 0


def test_ranks_that_see_none_of_the_gpus_they_were_given_say_why(starter: Starter) -> None:
    """Rather than train on the CPU while they hold the GPUs, as with a torch without CUDA or an old driver."""
    ended = starter.run(1, environ={"PHALANX_GPUS": "2"})
    assert ended.codes == [2]
    assert ended.output.startswith("error: The launcher gave the ranks of this machine 2 GPUs, and torch sees none: ")
    assert ended.output.count("\n") == 1
    assert starter.run(1, "world.device=cpu", "train.steps=1", environ={"PHALANX_GPUS": "1"}).codes == [0]


def test_more_ranks_than_gpus_is_an_error(launcher: Launcher, smi: Path) -> None:
    code, output = launcher.run("run", "-n", "5", environ=beside(smi))
    assert code == 2
    assert output.startswith("error: 5 ranks were asked for, one a GPU, and there are 4 GPUs to use. Type -n 4, or ")


def test_ranks_on_the_cpu_claim_no_gpu(launcher: Launcher, smi: Path, tmp_path: Path) -> None:
    """Whether the device is typed or an experiment's."""
    (tmp_path / "experiment").mkdir()
    mine = "# @package _global_\nworld: {device: cpu}\n"
    (tmp_path / "experiment" / "mine.yaml").write_text(mine)
    for words in (["world.device=cpu"], [f"--config-dir={tmp_path}", "experiment=mine"]):
        _, output = launcher.run("run", "--dry-run", "-n", "5", *words, environ=beside(smi))
        assert "--ranks=5" in output
        assert "CUDA_VISIBLE_DEVICES" not in output


def test_slices_serve_one_rank(launcher: Launcher, smi: Path) -> None:
    (smi / "gpus").write_text("GPU-0, 00000000:01:00.0, Enabled\n")
    (smi / "slices").write_text("GPU 0: (UUID: GPU-0)\n MIG (UUID: MIG-a)\n MIG (UUID: MIG-b)\n")
    code, output = launcher.run("run", "--dry-run", "-n", "2", environ=beside(smi))
    assert (code, "Type -n 1" in output) == (2, True)
    assert "--ranks=1 " in launcher.run("run", "--dry-run", environ=beside(smi))[1]

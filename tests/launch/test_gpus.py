"""GPUs are counted without torch, each belongs to one run at a time, and who holds it is said."""

import fcntl
import os
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest

from launch.claim import claim
from launch.machine import look
from tests.launch.command import Launcher, marked
from tests.ranks import until
from train.outcome import ConfigError

SMI = """#!/bin/sh
case "$1" in --query-gpu=*) cat "{folder}/gpus" ;; -L) cat "{folder}/slices" ;; esac
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
    (folder / "gpus").write_text("".join(f"GPU-{n}{n}-a, 00000000:0{n}:00.0, [N/A]\n" for n in range(4)))
    (folder / "code").write_text("0")
    return folder


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


def test_each_run_has_gpus_of_its_own_until_it_ends(launcher: Launcher, smi: Path) -> None:
    first = launcher.start("run", "-n", "3", body=HOLDS, environ=beside(smi))
    first.ready(3)
    assert first.told("gpus", 0) == "GPU-00-a,GPU-11-a,GPU-22-a"
    second = launcher.start("run", body=HOLDS, environ=beside(smi))  # what is free
    second.ready(1)
    assert second.told("gpus", 0) == "GPU-33-a"
    code, output = launcher.run("run", "-n", "2", environ=beside(smi, "3,2"))
    assert code == 2
    assert output.startswith("error: 2 GPUs are needed and 0 free: ")
    assert f"process {second.process.pid} holds GPU-33-a" in output
    assert f"process {first.process.pid} holds GPU-22-a" in output
    assert output.count("\n") == 1
    for run, said in ((first, ""), (second, "phalanx: training on 1 of 4 GPUs, for process ")):
        run.process.terminate()
        code, output = run.wait()
        assert code == 7
        assert output.startswith(said)
    code, output = launcher.run("run", "--dry-run", environ=beside(smi))
    assert "CUDA_VISIBLE_DEVICES=GPU-00-a,GPU-11-a,GPU-22-a,GPU-33-a " in output


def test_of_two_runs_that_start_together_one_has_all_it_needs(launcher: Launcher, smi: Path) -> None:
    """Neither waits for what the other has taken already."""
    turn = launcher.folder / "tmp" / f"phalanx-{os.geteuid()}" / "turn"
    turn.parent.mkdir(parents=True, mode=0o700)
    with turn.open("w") as ours:
        fcntl.flock(ours, fcntl.LOCK_EX)
        both = [launcher.start("run", "-n", "4", body="sys.exit(7)", environ=beside(smi)) for _ in range(2)]
        for run in both:
            until(partial(has_open, run.process.pid, turn))
    (first, _), (second, output) = sorted((run.wait() for run in both), reverse=True)
    assert (first, second) == (7, 2)
    assert "error: 4 GPUs are needed and 0 free" in output


def has_open(pid: int, path: Path) -> bool:
    with suppress(OSError):
        return str(path) in [os.readlink(entry) for entry in Path(f"/proc/{pid}/fd").iterdir()]
    return False


def test_a_killed_launcher_holds_its_gpus_until_its_ranks_are_gone(launcher: Launcher, smi: Path) -> None:
    first = launcher.start("run", "-n", "4", body="hear()\nos.open(here / 'end', os.O_RDONLY)", environ=beside(smi))
    os.mkfifo(first.here / "end")
    first.ready(4)
    first.process.kill()
    first.process.wait()
    code, output = launcher.run("run", "--dry-run", environ=beside(smi))
    assert code == 2, "ranks that save still use their GPUs"
    assert f"process {first.process.pid} holds GPU-00-a (it is gone, its ranks are not yet)" in output
    let_go = os.open(first.here / "end", os.O_RDWR)  # whoever waits to read it may go on
    until(lambda: not marked(launcher.mark))
    os.close(let_go)
    assert launcher.run("run", "--dry-run", environ=beside(smi))[0] == 0


def test_more_ranks_than_gpus_is_an_error(launcher: Launcher, smi: Path) -> None:
    code, output = launcher.run("run", "-n", "5", environ=beside(smi))
    assert code == 2
    assert output.startswith("error: 5 ranks were asked for, one a GPU, and there are 4 GPUs to use. Type -n 4, or ")


def test_ranks_on_the_cpu_claim_no_gpu(launcher: Launcher, smi: Path) -> None:
    _, output = launcher.run("run", "--dry-run", "-n", "5", "world.device=cpu", environ=beside(smi))
    assert "--nproc-per-node=5" in output
    assert "CUDA_VISIBLE_DEVICES" not in output


def test_slices_serve_one_rank(launcher: Launcher, smi: Path) -> None:
    (smi / "gpus").write_text("GPU-0, 00000000:01:00.0, Enabled\n")
    (smi / "slices").write_text("GPU 0: (UUID: GPU-0)\n MIG (UUID: MIG-a)\n MIG (UUID: MIG-b)\n")
    code, output = launcher.run("run", "--dry-run", "-n", "2", environ=beside(smi))
    assert (code, "Type -n 1" in output) == (2, True)
    assert "--nproc-per-node=1 " in launcher.run("run", "--dry-run", environ=beside(smi))[1]


@pytest.mark.parametrize("wrong", ["link", "open to others"])
def test_a_folder_of_claims_that_others_could_write_to_is_refused(
    tmp_path: Path, smi: Path, monkeypatch: pytest.MonkeyPatch, wrong: str
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    folder = tmp_path / f"phalanx-{os.geteuid()}"
    if wrong == "link":
        folder.symlink_to(smi)
    else:
        folder.mkdir()
        folder.chmod(0o777)
    monkeypatch.setenv("PATH", f"{smi}{os.pathsep}{os.environ['PATH']}")
    with pytest.raises(ConfigError, match="is not a folder that only you may use"), claim(look({}, True).gpus, None):
        pass

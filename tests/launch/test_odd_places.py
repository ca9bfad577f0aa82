"""Where streams are closed, nobody has a home or nothing can be written, one line says so, or it goes on."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.ranks import QUIET, ROOT
from train.sinks import wandb_mode

CLI = f"{shlex.quote(sys.executable)} {shlex.quote(str(ROOT / 'launch' / 'cli.py'))}"
MAIN = f"{shlex.quote(sys.executable)} {shlex.quote(str(ROOT / 'train' / 'main.py'))}"


def shell(command: str, cwd: Path, **environ: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        ["sh", "-c", command], cwd=cwd, env={**os.environ, **QUIET, **environ}, capture_output=True, text=True
    )


@pytest.mark.parametrize("closed", [">&-", ">&- 2>&-", "<&- >&- 2>&-", "</dev/null >/dev/full"])
def test_closed_streams_are_no_reason_for_a_traceback(tmp_path: Path, closed: str) -> None:
    full = "full" in closed
    for command, code in ((f"{CLI} status", 1 if full else 0), (f"{CLI} status none", 2), (f"{MAIN} sed=1", 2)):
        done = shell(f"{command} {closed}", tmp_path)
        assert done.returncode == code, done.stderr
        assert "Traceback" not in done.stderr
        assert done.stderr.count("\n") <= 1


def test_nothing_printed_lands_in_a_file_that_took_a_closed_streams_number(tmp_path: Path) -> None:
    program = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r}); from train.output import open_all; open_all()\n"
        "kept = open('kept', 'w'); print('noise', flush=True); kept.close()"
    )
    shell(f"{shlex.quote(sys.executable)} -c {shlex.quote(program)} <&- >&- 2>&-", tmp_path)
    assert (tmp_path / "kept").read_text() == ""


def test_place_without_room_for_temporary_files_is_told_in_a_line(tmp_path: Path) -> None:
    program = (
        f"import sys, tempfile; sys.path.insert(0, {str(ROOT)!r}); sys.argv = ['phalanx', 'run', '--dry-run']\n"
        "def none(): raise FileNotFoundError(2, 'No usable temporary directory found in [/tmp]')\n"
        "tempfile.gettempdir = none\nfrom launch.cli import main; main()"
    )
    done = shell(f"{shlex.quote(sys.executable)} -c {shlex.quote(program)}", tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
    assert "No usable temporary directory" in done.stderr
    assert "Set TMPDIR" in done.stderr


def test_user_whom_nobody_knows_and_who_has_no_home_trains_without_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HOME", raising=False)

    def unknown(uid: int) -> None:
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    monkeypatch.setattr("pwd.getpwuid", unknown)
    assert wandb_mode.resolve_mode("auto", {}) == "offline"

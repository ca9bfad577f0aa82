"""Where streams are closed, nobody has a home or nothing can be written, one line says so, or it goes on."""

import os
import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.ranks import QUIET, ROOT

CLI = f"{shlex.quote(sys.executable)} {shlex.quote(str(ROOT / 'phalanx'))}"
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
        f"import sys; sys.path.insert(0, {str(ROOT)!r}); from phalanx.common import stdio; stdio.open_closed_streams()\n"
        "kept = open('kept', 'w'); print('noise', flush=True); kept.close()"
    )
    shell(f"{shlex.quote(sys.executable)} -c {shlex.quote(program)} <&- >&- 2>&-", tmp_path)
    assert (tmp_path / "kept").read_text() == ""


def of_root_alone() -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can mount, and be a user whom nobody knows")


# All that is mounted, but what the kernel makes up, is read-only; the folder here is one apart, where $KEPT is set.
READ_ONLY = """
mount --make-rprivate /
[ -z "$KEPT" ] || mount -t tmpfs none "$KEPT"
while read -r _ place type _; do
  case $type in proc|sysfs|devpts|devtmpfs|cgroup*|mqueue) continue;; esac
  [ "$place" = "$KEPT" ] || mount -o remount,bind,ro "$place" || exit 99
done < /proc/self/mounts
"""


@pytest.mark.parametrize(
    "command", [f"{CLI} run -n 1 model=mlp", f"{CLI} sweep optim.lr=1,2", f"{CLI} run --dry-run", f"{MAIN} model=mlp"]
)
def test_place_where_nothing_can_be_written_is_told_in_a_line(tmp_path: Path, command: str) -> None:
    of_root_alone()
    done = shell(f"exec unshare -m sh -c {shlex.quote(READ_ONLY + command)}", tmp_path)
    assert done.returncode in (1, 2), done.stderr
    told = done.stderr.removeprefix("phalanx: starting 1 rank\n")
    assert re.fullmatch(r"error: (No usable temporary directory .* Set TMPDIR to .*|Read-only file .*)\n", told)


def test_place_where_the_runs_alone_can_be_written_trains(tmp_path: Path) -> None:
    of_root_alone()
    kept = {"KEPT": str(tmp_path), "TMPDIR": str(tmp_path), "HOME": "/nowhere"}
    done = shell(
        f"exec unshare -m sh -c {shlex.quote(f'{READ_ONLY} cd $KEPT; {MAIN} model=mlp train.steps=1')}", ROOT, **kept
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""


def test_user_whom_nobody_knows_and_who_has_no_home_trains_without_a_key() -> None:
    of_root_alone()
    rights = "+dac_override,+dac_read_search"  # the checkout may be closed to others
    nobody = f"setpriv --reuid=54321 --regid=54321 --clear-groups --inh-caps={rights} --ambient-caps={rights}"
    words = "model=mlp train.steps=1 wandb.mode=auto"
    with tempfile.TemporaryDirectory() as folder:
        os.chown(folder, 54321, 54321)
        done = shell(f"unset HOME WANDB_MODE; exec {nobody} {MAIN} {words}", Path(folder))
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert done.stderr.count("\n") <= 1, "one warning of W&B's"

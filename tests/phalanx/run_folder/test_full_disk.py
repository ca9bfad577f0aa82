"""A folder that cannot be written is one message with what is free, and costs at most the steps since the last save."""

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.paced_task import TASK as PACED
from tests.paced_task import Pace
from tests.ranks import Nursery, Starter, until
from tests.train.distributed.fault_injection import TASK, Sabotage

RUN = ("run.name=r", "model=mlp", "model.hidden=[64]", "train.steps=20", "log.every=2", "checkpoint.every=4")


@pytest.fixture
def disk(starter: Starter) -> Iterator[Path]:
    """The runs' folder on a disk of its own, with room for one checkpoint of RUN, which has about 610 kB."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a disk")
    folder = starter.folder / "runs"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(folder)], check=True)
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def grow(disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,size=16m", str(disk)], check=True)


def test_full_disk_ends_the_run_with_its_own_code_and_the_same_command_continues(starter: Starter, disk: Path) -> None:
    calm = starter.folder / "calm"
    cause = starter.folder / "cause"
    ended = starter.run(2, *RUN, environ={"PHALANX_CAUSE_FILE": str(cause)})
    assert ended.codes == [8, 8], ended.output
    assert "Traceback" not in ended.output
    assert "Logging error" not in ended.output
    assert ended.output.count("error: ") == 1
    assert "No space left on device" in ended.output
    assert "GiB free of" in ended.output
    assert '"code": 8' in cause.read_text()
    saved = sorted(path.name for path in disk.glob("r/checkpoints/*"))
    assert saved == ["step_00000004"], "what was saved before is kept, and nothing half beside it"
    grow(disk)
    assert starter.run(2, *RUN).codes == [0, 0]
    assert [event["step"] for event in starter.results("r").events("resume")] == [4]
    other = starter.run(2, *RUN, f"run.root={calm}")
    assert other.codes == [0, 0]
    assert starter.results("r").sha256 in (calm / "r/summary.json").read_text()


def test_save_that_failed_comes_to_its_end_when_there_is_room_again(starter: Starter, disk: Path) -> None:
    pace = Pace(after=11, gate=str(starter.folder / "gate"))
    world = starter.start(2, *RUN, PACED, environ=pace.environ())
    until(lambda: "step 8 was not saved" in world.files[0].read_text())
    grow(disk)
    pace.open()
    ended = world.wait()
    assert ended.codes == [0, 0], ended.output
    results = starter.results("r")
    assert [event["step"] for event in results.events("save_failed")] == [8]
    assert "No space left on device" in results.events("save_failed")[0]["why"]
    assert [line["step"] for line in results.metrics("train")] == list(range(2, 21, 2))


def test_files_that_cannot_grow_are_no_traceback(starter: Starter) -> None:
    """As over a quota: the system refuses in the middle of a file."""
    sabotage = Sabotage(0, "step", "fill_disk", 7)
    run = (*RUN, TASK, "model.hidden=[256]")
    ended = starter.run(2, *run, environ=sabotage.environ())
    assert ended.codes == [8, 8], ended.output
    assert "Traceback" not in ended.output
    assert ended.output.count("error: ") == 1
    assert "File too large" in ended.output


def shell(command: str) -> None:
    subprocess.run(["sh", "-ec", command], check=True)


# What makes a folder one that cannot be written, what ends that, and what the system says meanwhile.
READ_ONLY = ("mount --bind $0 $0; mount -o remount,bind,ro $0", "umount $0", "Read-only file system")
IMMUTABLE = ("chattr +i $0", "chattr -i $0", "Operation not permitted")


@pytest.mark.parametrize(("close", "reopen", "says"), [READ_ONLY, IMMUTABLE], ids=["read-only", "immutable"])
def test_folder_of_checkpoints_that_is_closed_in_mid_run_is_one_message(
    starter: Starter, disk: Path, close: str, reopen: str, says: str
) -> None:
    grow(disk)
    folder = f"'{disk / 'r/checkpoints'}'"
    pace = Pace(after=6, gate=str(starter.folder / "gate"))
    world = starter.start(2, *RUN, PACED, environ=pace.environ())
    until(lambda: (disk / "r/checkpoints/step_00000004/manifest.json").exists())
    shell(close.replace("$0", folder))
    try:
        pace.open()
        ended = world.wait()
    finally:
        shell(reopen.replace("$0", folder))
    assert ended.codes == [8, 8], ended.output
    assert says in ended.output
    assert ended.output.count("error: ") == 1
    assert "Traceback" not in ended.output
    assert starter.run(2, *RUN, PACED, environ=pace.environ()).codes == [0, 0]
    assert [event["step"] for event in starter.results("r").events("resume")] == [4]


BEREFT = "task._target_=tests.phalanx.run_folder.unprivileged_task.Bereft"


@pytest.fixture(scope="module")
def killed(nursery: Nursery, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that was killed in step 12."""
    starter = Starter(nursery, tmp_path_factory.mktemp("killed"))
    assert starter.run(1, *RUN, BEREFT, environ=Sabotage(0, "step", "kill", 12).environ()).codes == [-signal.SIGKILL]
    return starter.results("r").folder


@pytest.mark.xdist_group("killed")
@pytest.mark.parametrize(
    "name",
    ["logs/rank_0.log", "metrics.jsonl", "events.jsonl", "checkpoints", "lease", "resolved.yaml", "environment.json"],
)
def test_what_belongs_to_another_user_is_one_message(starter: Starter, killed: Path, name: str) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give files away")
    others = shutil.copytree(killed, starter.results("r").folder) / name
    os.chown(others, 1234, 1234)
    others.chmod(0o500 if others.is_dir() else 0o600)
    ended = starter.run(1, *RUN, BEREFT)
    written = others.suffix in (".log", ".jsonl")
    assert ended.codes == [8 if written else 2], ended.output
    assert re.fullmatch(r"error: .*/r\S* cannot be (written|read|held): Permission denied\. .*\n", ended.output)
    if others.is_file():
        assert f"/r/{name} cannot be {'written' if written else 'read'}" in ended.output


@pytest.mark.xdist_group("killed")
@pytest.mark.parametrize("name", ["metrics.jsonl", "events.jsonl"])
def test_a_pipe_in_place_of_a_file_is_not_waited_for(starter: Starter, killed: Path, name: str) -> None:
    pipe = shutil.copytree(killed, starter.results("r").folder) / name
    pipe.unlink()
    os.mkfifo(pipe)
    ended = starter.run(1, *RUN, BEREFT)
    assert ended.codes == [8], ended.output
    assert f"{name} cannot be written: it is no regular file" in ended.output

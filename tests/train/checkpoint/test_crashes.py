"""A checkpoint exists whole or not at all, wherever the process that saves it dies."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from phalanx.run_folder.checkpoints import FORMAT, WITH_FROZEN, Checkpoints, verify
from tests.train.checkpoint import killed_save


def names(run: Path) -> list[str]:
    return sorted(path.name for path in (run / "checkpoints").rglob("*"))


def test_save_that_is_killed_anywhere_leaves_the_one_before_or_itself(tmp_path: Path) -> None:
    subprocess.run([sys.executable, killed_save.__file__, str(tmp_path)], check=True, timeout=120)
    runs = sorted(tmp_path.iterdir(), key=lambda run: int(run.name))
    assert len(runs) > 50  # as many as there are changes, and one that was not disturbed
    undisturbed = names(runs[-1])
    assert undisturbed.count("manifest.json") == killed_save.KEEP + 1
    for run in runs[:-1]:
        said = max((int(path.name[5:]) for path in run.glob("said_*")), default=0)
        checkpoints = Checkpoints(run)
        found, bad = checkpoints.newest_good()
        assert checkpoints.clean(bad) == [], run.name
        newest = 0 if found is None else found.step
        assert newest in (said, said + 1), run.name
        for step in checkpoints.steps():
            verify(checkpoints.folder / f"step_{step:08d}")
        for step in range(newest + 1, max(killed_save.STEPS) + 1):
            killed_save.save(run, step)
        checkpoints.retain(killed_save.KEEP, killed_save.BEST)
        assert names(run) == undisturbed, run.name


def test_all_files_are_on_the_disk_before_the_rename_and_the_rename_before_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    fsync = os.fsync

    def recorded(descriptor: int) -> None:
        done.append("synced " + os.path.relpath(os.readlink(f"/proc/self/fd/{descriptor}"), tmp_path))
        fsync(descriptor)

    rename = Path.rename

    def recorded_rename(self: Path, target: Path) -> Path:
        done.append(f"renamed {self.relative_to(tmp_path)}")
        return rename(self, target)

    monkeypatch.setattr(os, "fsync", recorded)
    monkeypatch.setattr(Path, "rename", recorded_rename)
    killed_save.save(tmp_path, 1)
    staging = "checkpoints/.step_00000001.0.staging"
    before, after = done[: done.index(f"renamed {staging}")], done[done.index(f"renamed {staging}") + 1 :]
    assert {f"synced {staging}/{name}" for name in killed_save.FILES} < set(before)
    assert any(word.startswith(f"synced {staging}/.manifest.json") for word in before)
    assert before[-1] == f"synced {staging}"
    assert after == ["synced checkpoints"]


def test_newest_and_best_are_kept(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    for step in range(1, 8):
        killed_save.commit(checkpoints, step)
        checkpoints.retain(2, 1)
    assert checkpoints.steps() == [1, 6, 7]
    checkpoints.retain(1, None)
    assert checkpoints.steps() == [7]


def test_format_of_the_manifest_is_stated() -> None:
    # A change of the layout needs another number and a word on old checkpoints.
    assert (FORMAT, WITH_FROZEN) == (1, 2)

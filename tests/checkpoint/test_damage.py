"""A checkpoint that is not what its manifest says is set aside, and an older good one is used."""

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.checkpoint import crasher
from train import checkpoint
from train.checkpoint import MANIFEST, Checkpoints, source
from train.outcome import ConfigError
from train.progress import Progress

Damage = Callable[[Path], object]


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-3])


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(bytes(content))


def become_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


def with_manifest(**changes: Any) -> Damage:
    def change(folder: Path) -> None:
        manifest = json.loads((folder / MANIFEST).read_text())
        (folder / MANIFEST).write_text(json.dumps({**manifest, **changes}))

    return change


def to_file(name: str, damage: Damage) -> Damage:
    return lambda folder: damage(folder / name)


DAMAGES: dict[str, tuple[Damage, str]] = {
    **{f"{name} cut": (to_file(name, cut), f"{name} is not what was written") for name in crasher.FILES},
    **{f"{name} flipped": (to_file(name, flip), f"{name} is not what was written") for name in crasher.FILES},
    **{f"{name} missing": (to_file(name, Path.unlink), f"{name} is missing") for name in crasher.FILES},
    "manifest cut": (to_file(MANIFEST, cut), "cannot be read"),
    "manifest empty": (to_file(MANIFEST, lambda file: file.write_text("")), "cannot be read"),
    "manifest garbage": (to_file(MANIFEST, lambda file: file.write_bytes(b"\xff\xfe{")), "cannot be read"),
    "manifest a list": (to_file(MANIFEST, lambda file: file.write_text("[1]")), "cannot be read"),
    "manifest a folder": (to_file(MANIFEST, become_folder), "cannot be read"),
    "wrong step": (with_manifest(step=7), "speaks of step 7"),
    "no format": (with_manifest(format=None), "is of format None"),
    "no files": (with_manifest(files=None), "cannot be read"),
    "files of another kind": (with_manifest(files={"state.pt": 3}), "cannot be read"),
    "file outside": (with_manifest(files={"../../secret": {"size": 1, "sha256": "0"}}), "../../secret is missing"),
}


@pytest.mark.parametrize("kind", DAMAGES)
def test_damaged_checkpoint_is_set_aside_and_the_older_one_is_used(tmp_path: Path, kind: str) -> None:
    damage, message = DAMAGES[kind]
    for step in (1, 2, 3):
        crasher.save(tmp_path, step)
    (tmp_path / "secret").write_text("s")
    checkpoints = Checkpoints(tmp_path)
    newest = checkpoints.folder / "step_00000003"
    damage(newest)
    found, [trouble] = checkpoints.newest_good()
    assert found is not None
    assert found.step == 2
    assert "step_00000003" in trouble
    assert message in trouble
    assert not newest.exists()
    assert newest.with_name("step_00000003.damaged").is_dir()
    assert checkpoints.steps() == [2]


def test_all_damaged_leaves_none_and_each_is_told(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        crasher.save(tmp_path, step)
    checkpoints = Checkpoints(tmp_path)
    for step in checkpoints.steps():
        flip(checkpoints.folder / f"step_{step:08d}/state.pt")
    found, troubles = checkpoints.newest_good()
    assert found is None
    assert len(troubles) == 2


def test_a_checkpoint_of_another_version_is_no_damaged_one(tmp_path: Path) -> None:
    for step in (1, 2):
        crasher.save(tmp_path, step)
    checkpoints = Checkpoints(tmp_path)
    with_manifest(format=99, files=None)(checkpoints.folder / "step_00000002")
    with pytest.raises(ConfigError, match=r"step_00000002 is of format 99.* run.fresh=true"):
        checkpoints.newest_good()
    assert checkpoints.steps() == [1, 2]


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO, errno.ESTALE])
def test_a_checkpoint_that_cannot_be_read_is_no_damaged_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    for step in (1, 2):
        crasher.save(tmp_path, step)
    checkpoints = Checkpoints(tmp_path)

    def refused(path: Path, *_: object, **__: object) -> str:
        raise OSError(number, os.strerror(number), str(path))

    for holder, name in ((Path, "read_text"), (checkpoint, "sha256")):
        with monkeypatch.context() as patch:
            patch.setattr(holder, name, refused)
            with pytest.raises(ConfigError, match=rf"step_00000002/.* cannot be read: {os.strerror(number)}"):
                checkpoints.newest_good()
    assert checkpoints.steps() == [1, 2]


def test_progress_of_another_version_is_read_as_far_as_it_is_known(caplog: pytest.LogCaptureFixture) -> None:
    stored = {**Progress(began=1.0, step=7).as_json(), "warp": 9}
    del stored["world_sizes"]
    assert Progress.from_json(stored) == Progress(began=1.0, step=7)
    assert "warp" in caplog.text


def test_the_same_step_can_be_damaged_twice(tmp_path: Path) -> None:
    for _ in range(3):
        crasher.save(tmp_path, 1)
        cut(tmp_path / "checkpoints/step_00000001/state.pt")
        Checkpoints(tmp_path).newest_good()
    names = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert names == ["step_00000001.1.damaged", "step_00000001.2.damaged", "step_00000001.damaged"]


def test_half_deleted_and_half_written_ones_are_no_checkpoints(tmp_path: Path) -> None:
    for step in (1, 2):
        crasher.save(tmp_path, step)
    checkpoints = Checkpoints(tmp_path)
    (checkpoints.folder / "step_00000002" / MANIFEST).unlink()
    checkpoints.staging(3).mkdir()
    (checkpoints.staging(3) / MANIFEST).write_text("{}")
    (checkpoints.folder / "step_of_my_own9").mkdir()
    assert checkpoints.steps() == [1]
    checkpoints.clean()
    assert sorted(path.name for path in checkpoints.folder.iterdir()) == ["step_00000001", "step_of_my_own9"]


def test_damage_in_a_checkpoint_that_was_named_is_an_error(tmp_path: Path) -> None:
    crasher.save(tmp_path, 1)
    flip(tmp_path / "checkpoints/step_00000001/state.pt")
    for named in (tmp_path, tmp_path / "checkpoints/step_00000001"):
        with pytest.raises(ConfigError, match=r"step_00000001 is damaged: state\.pt is not what was written"):
            source(named, want_best=False)
    with pytest.raises(ConfigError, match="holds no checkpoint"):
        source(tmp_path / "checkpoints", want_best=False)

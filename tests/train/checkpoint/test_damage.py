"""A checkpoint that is not what its manifest says is set aside, and an older good one is used."""

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from phalanx.common.files import sha256
from phalanx.exit.codes import ConfigError
from phalanx.run_folder import checkpoints as stored
from phalanx.run_folder.checkpoints import Checkpoints, source
from phalanx.run_folder.names import MANIFEST
from phalanx.train.checkpoint.progress import Progress
from tests.train.checkpoint import killed_save

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
        del manifest["manifest_sha256"]  # as older versions wrote it
        (folder / MANIFEST).write_text(json.dumps({**manifest, **changes}))

    return change


def to_file(name: str, damage: Damage) -> Damage:
    return lambda folder: damage(folder / name)


DAMAGES: dict[str, tuple[Damage, str]] = {
    **{f"{name} cut": (to_file(name, cut), f"{name} is not what was written") for name in killed_save.FILES},
    **{f"{name} flipped": (to_file(name, flip), f"{name} is not what was written") for name in killed_save.FILES},
    **{f"{name} missing": (to_file(name, Path.unlink), f"{name} is missing") for name in killed_save.FILES},
    "manifest cut": (to_file(MANIFEST, cut), "cannot be read"),
    "manifest empty": (to_file(MANIFEST, lambda file: file.write_text("")), "cannot be read"),
    "manifest garbage": (to_file(MANIFEST, lambda file: file.write_bytes(b"\xff\xfe{")), "cannot be read"),
    "manifest without end": (to_file(MANIFEST, lambda file: os.truncate(file, 2**42)), "cannot be read"),
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
        killed_save.save(tmp_path, step)
    (tmp_path / "secret").write_text("s")
    checkpoints = Checkpoints(tmp_path)
    newest = checkpoints.folder / "step_00000003"
    damage(newest)
    found, bad = checkpoints.newest_good()
    [trouble] = checkpoints.clean(bad)
    assert found is not None
    assert found.step == 2
    assert "step_00000003" in trouble
    assert message in trouble
    assert not newest.exists()
    assert newest.with_name("step_00000003.damaged").is_dir()
    assert checkpoints.steps() == [2]


def test_all_damaged_leaves_none_and_each_is_told(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        killed_save.save(tmp_path, step)
    checkpoints = Checkpoints(tmp_path)
    for step in checkpoints.steps():
        flip(checkpoints.folder / f"step_{step:08d}/state.pt")
    found, bad = checkpoints.newest_good()
    assert found is None
    assert [folder.name for folder in bad] == ["step_00000003", "step_00000002"]
    assert checkpoints.steps() == [2, 3], "until it is clear that an older one is good, nothing is set aside"


def test_a_checkpoint_of_another_version_is_no_damaged_one(tmp_path: Path) -> None:
    for step in (1, 2):
        killed_save.save(tmp_path, step)
    checkpoints = Checkpoints(tmp_path)
    with_manifest(format=99, files=None)(checkpoints.folder / "step_00000002")
    with pytest.raises(ConfigError, match=r"step_00000002 is of format 99.* run.fresh=true"):
        checkpoints.newest_good()
    assert checkpoints.steps() == [1, 2]


@pytest.mark.parametrize("number", [errno.EACCES, errno.ESTALE])
def test_a_checkpoint_that_cannot_be_read_is_no_damaged_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    for step in (1, 2):
        killed_save.save(tmp_path, step)
    checkpoints = Checkpoints(tmp_path)

    def refused(path: Path, *_: object, **__: object) -> str:
        raise OSError(number, os.strerror(number), str(path))

    for holder, name in ((Path, "read_text"), (stored, "sha256")):
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
        killed_save.save(tmp_path, 1)
        cut(tmp_path / "checkpoints/step_00000001/state.pt")
        Checkpoints(tmp_path).clean(Checkpoints(tmp_path).newest_good()[1])
    names = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert names == ["step_00000001.1.damaged", "step_00000001.2.damaged", "step_00000001.damaged"]


def test_half_deleted_and_half_written_ones_are_no_checkpoints(tmp_path: Path) -> None:
    for step in (1, 2):
        killed_save.save(tmp_path, step)
    checkpoints = Checkpoints(tmp_path)
    (checkpoints.folder / "step_00000002" / MANIFEST).unlink()
    checkpoints.staging(3).mkdir()
    (checkpoints.staging(3) / MANIFEST).write_text("{}")
    (checkpoints.folder / "step_of_my_own9").mkdir()
    assert checkpoints.steps() == [1]
    (checkpoints.folder / ".step_00000004.deleting").mkdir()
    [told] = checkpoints.clean({})
    assert "step_00000002 is damaged (manifest.json is missing)" in told
    left = sorted(path.name for path in checkpoints.folder.iterdir())
    assert left == ["best", "step_00000001", "step_00000002.damaged", "step_of_my_own9"]
    assert (checkpoints.folder / "step_00000002.damaged/state.pt").exists()


def test_damage_in_a_checkpoint_that_was_named_is_an_error(tmp_path: Path) -> None:
    killed_save.save(tmp_path, 1)
    flip(tmp_path / "checkpoints/step_00000001/state.pt")
    for named in (tmp_path, tmp_path / "checkpoints/step_00000001"):
        with pytest.raises(ConfigError, match=r"step_00000001 is damaged: state\.pt is not what was written"):
            source(named, want_best=False)
    with pytest.raises(ConfigError, match="holds no checkpoint"):
        source(tmp_path / "checkpoints", want_best=False)


def test_a_bad_sector_falls_back_to_the_older_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for step in (1, 2):
        killed_save.save(tmp_path, step)
    checkpoints, read = Checkpoints(tmp_path), sha256

    def torn(path: Path) -> str:
        if path.parent.name == "step_00000002":
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
        return read(path)

    monkeypatch.setattr(stored, "sha256", torn)
    found, bad = checkpoints.newest_good()
    assert found is not None
    assert found.step == 1
    assert [(folder.name, "Input/output error" in why) for folder, why in bad.items()] == [("step_00000002", True)]


def test_every_bit_of_a_manifest_counts_and_one_of_an_older_version_is_read(tmp_path: Path) -> None:
    killed_save.save(tmp_path, 1)
    manifest = tmp_path / "checkpoints/step_00000001" / MANIFEST
    content = manifest.read_bytes()
    passed = 0
    for position in range(0, len(content), 3):
        flipped = bytearray(content)
        flipped[position] ^= 1 << position % 8
        manifest.write_bytes(bytes(flipped))
        try:
            passed += Checkpoints(tmp_path).newest_good()[0] is not None
        except ConfigError:
            assert b'"format"' in content[position - 12 : position + 12], position
    name = len("manifest_sha256") // 3 + 1  # where its own name is hit, all else is what was written
    assert passed <= name
    manifest.write_text(json.dumps({k: v for k, v in json.loads(content).items() if k != "manifest_sha256"}))
    assert Checkpoints(tmp_path).newest_good()[0] is not None


def test_of_what_replaced_starts_saved_one_is_kept(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    for _ in range(4):
        killed_save.commit(checkpoints, 1)
    assert len(list(checkpoints.folder.glob("*.fenced"))) == 3
    checkpoints.retain(1, None)
    assert len(list(checkpoints.folder.glob("*.fenced"))) == 1


def test_files_of_a_checkpoint_follow_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        killed_save.save(tmp_path, 1)
    finally:
        os.umask(before)
    modes = {path.stat().st_mode & 0o777 for path in (tmp_path / "checkpoints/step_00000001").iterdir()}
    assert modes == {0o640}

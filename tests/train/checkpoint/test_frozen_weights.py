"""Weights that never train lie on the disk once, and each checkpoint is whole all the same."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import phalanx
from phalanx.common.files import sha256
from phalanx.exit.codes import ConfigError
from phalanx.train.checkpoint.frozen_weights import store
from phalanx.train.checkpoint.weights import read, weights_sha256
from tests.compare_runs import same
from tests.ranks import Results, Starter
from tests.train.small_runs import planted, undisturbed_and_killed
from tests.zoo.models import untamed

STEPS = ("train.steps=8", "train.epochs=null", "train.ema_decay=0.9", "checkpoint.every=2", "checkpoint.keep=2")


def run(model: str = "FrozenBackbone", **options: Any) -> tuple[str, ...]:
    return (*(word for word in untamed(model, planted(**options)) if "checkpoint.keep" not in word), *STEPS)


def folders(results: Results) -> list[Path]:
    return sorted(results.folder.glob("checkpoints/step_*[0-9]"))


def files(results: Results) -> set[int]:
    return {(folder / "frozen.safetensors").stat().st_ino for folder in folders(results)}


@pytest.mark.parametrize("ranks", [1, 2])
def test_they_are_stored_once_over_saves_and_restarts(starter: Starter, ranks: int) -> None:
    undisturbed, killed = undisturbed_and_killed(starter, ranks, *run(kill_at=8 * 5))
    same(undisturbed, killed)
    for results in (undisturbed, killed):
        assert [folder.name for folder in folders(results)] == ["step_00000006", "step_00000008"]
        assert len(files(results)) == 1
        newest = folders(results)[-1]
        assert set(load_file(newest / "frozen.safetensors")) == {
            f"backbone.{part}" for part in ("0.weight", "0.bias", "1.weight", "1.bias")
        }
        for name in ("model", "ema"):
            apart = load_file(newest / f"{name}.safetensors")
            assert not apart.keys() & {"backbone.0.weight", "backbone.1.weight"}
            assert apart.keys() >= {"backbone.1.running_mean", "first.weight"}
        assert weights_sha256(read(newest / "model.safetensors")) == results.sha256
    found = phalanx.load(killed.folder, trust=["tests"])
    assert found.weights().keys() >= {"backbone.0.weight", "first.weight"}
    loaded = found.model().state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in found.weights().items())
    begun = starter.train(1, *run(), f"train.init_from={killed.folder}", "train.steps=1", name="begun")
    assert torch.equal(read(folders(begun)[-1] / "model.safetensors")["backbone.0.weight"], loaded["backbone.0.weight"])


def test_a_weight_that_does_not_train_and_changes_is_stored_each_time(starter: Starter) -> None:
    undisturbed, killed = undisturbed_and_killed(starter, 1, *run("Teacher", kill_at=8 * 5))
    same(undisturbed, killed)
    assert len(files(killed)) == 2
    before, after = (read(folder / "model.safetensors") for folder in folders(killed))
    assert not torch.equal(before["teacher.weight"], after["teacher.weight"])


def test_only_checkpoints_with_such_weights_are_of_a_format_that_older_versions_refuse(starter: Starter) -> None:
    """Those that were saved before there was one go on."""
    with_frozen = starter.train(1, *run(), name="run")
    plain = starter.train(1, *planted(), "train.steps=2", "train.epochs=null", name="plain")
    assert [format_of(folders(each)[-1]) for each in (with_frozen, plain)] == [2, 1]
    (with_frozen.folder / "summary.json").unlink()
    for folder in folders(with_frozen):
        state_format(folder, 1)
    ended = starter.run(1, *run(), "run.name=run")
    assert ended.codes == [0], ended.output
    assert "damaged" not in ended.output
    assert starter.results("run").sha256 == with_frozen.sha256
    (with_frozen.folder / "summary.json").unlink()
    state_format(folders(with_frozen)[-1], 3)
    ended = starter.run(1, *run(), "run.name=run")
    assert ended.codes == [2]
    assert "step_00000008 is of format 3, and this version of Phalanx reads 1 and 2" in ended.output


def format_of(folder: Path) -> int:
    return int(json.loads((folder / "manifest.json").read_text())["format"])


def state_format(folder: Path, number: int) -> None:
    """As another version would have, with no hash of the manifest itself."""
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest.pop("manifest_sha256", None)
    (folder / "manifest.json").write_text(json.dumps({**manifest, "format": number}))


def test_a_file_that_is_damaged_or_another_is_noticed(starter: Starter) -> None:
    whole = starter.train(1, *run(), name="run")
    newest = folders(whole)[-1]
    (whole.folder / "summary.json").unlink()
    (newest / "frozen.safetensors").unlink()
    ended = starter.run(1, *run(), "run.name=run")
    assert ended.codes == [0], ended.output
    assert "step_00000008 is damaged (frozen.safetensors is missing)" in ended.output
    assert starter.results("run").sha256 == whole.sha256
    newest, copied = folders(whole)[-1], starter.folder / "copied"
    shutil.copytree(newest, copied)
    content = bytearray((copied / "frozen.safetensors").read_bytes())
    content[-1] ^= 1
    (copied / "frozen.safetensors").write_bytes(content)
    with pytest.raises(ConfigError, match=r"does not hold what model\.safetensors was saved with"):
        read(copied / "model.safetensors")


def test_one_that_a_bad_sector_has_met_since_is_not_linked_but_written_anew(tmp_path: Path) -> None:
    frozen = {"weight": torch.arange(4.0)}
    older, staging, later = (tmp_path / name for name in ("step_00000001", ".staging", ".later"))
    for folder in (older, staging, later):
        folder.mkdir()
    file = older / "frozen.safetensors"
    digest = store(frozen, older)
    (older / "manifest.json").write_text(json.dumps({"files": {file.name: {"sha256": sha256(file)}}}))
    assert store(frozen, staging) == digest
    assert (staging / file.name).samefile(file)
    content = file.read_bytes()
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert store(frozen, later) == digest
    assert (later / file.name).read_bytes() == content

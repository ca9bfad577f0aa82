"""A link below a run's folder has no other file written, emptied or deleted."""

import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from phalanx.exit.codes import ConfigError
from phalanx.run_folder import rank_logs
from phalanx.run_folder.links import check_links
from phalanx.train.sinks.jsonl import JsonLines
from tests.ranks import Starter

PRECIOUS = "precious"


@pytest.fixture
def victim(tmp_path: Path) -> Iterator[Path]:
    """A folder with a checkpoint of another run, and a file, that must stay as they are."""
    folder = tmp_path / "victim" / "step_00000001"
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text(PRECIOUS)
    yield folder
    assert (folder / "manifest.json").read_text() == PRECIOUS
    assert [path.name for path in folder.iterdir()] == ["manifest.json"]


def test_lines_and_logs_are_not_written_through_links(tmp_path: Path, victim: Path) -> None:
    run, file = tmp_path / "run", victim / "manifest.json"
    (run / "logs").mkdir(parents=True)
    (run / "metrics.jsonl").write_text(json.dumps({"step": 1}) + "\n")
    for make in (Path.symlink_to, Path.hardlink_to):
        make(run / "metrics.jsonl.new", file)
        JsonLines(run, 1, lambda: None).close(None)
        assert (run / "metrics.jsonl").read_text() == '{"step": 1}\n'
    (run / "logs" / "rank_0.log").symlink_to(file)
    before = logging.getLogger().handlers[:]
    with pytest.raises(OSError, match="symbolic"):
        rank_logs.to_file(run / "logs", 0, os.environ)
    assert logging.getLogger().handlers == before
    (run / "metrics.jsonl").unlink()
    (run / "metrics.jsonl").symlink_to(tmp_path / "made through a link")
    with pytest.raises(OSError, match="symbolic"):
        JsonLines(run, 1, lambda: None)
    assert not (tmp_path / "made through a link").exists()


PLACES = ("lease", "logs", "wandb", "tensorboard", "metrics.jsonl.new", "stop.json", "summary.json", "logs/rank_3.log")
BELOW = ("checkpoints/step_00000001", "checkpoints/.step_00000002.1.staging", "checkpoints/step_00000003/state.pt")


@pytest.mark.parametrize("place", PLACES + BELOW)
def test_links_below_the_folder_are_refused(tmp_path: Path, victim: Path, place: str) -> None:
    link = tmp_path / "run" / place
    link.parent.mkdir(parents=True, exist_ok=True)
    check_links(tmp_path / "run")
    link.symlink_to(victim)
    with pytest.raises(ConfigError, match=f"{link.name} is a link"):
        check_links(tmp_path / "run")


def test_folder_itself_and_its_checkpoints_may_be_links_of_this_user_or_root(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    (disk / "run").mkdir(parents=True)
    (disk / "checkpoints" / "step_00000001").mkdir(parents=True)
    (tmp_path / "run").symlink_to(disk / "run")
    (disk / "run" / "checkpoints").symlink_to(disk / "checkpoints")
    check_links(tmp_path / "run")
    if os.geteuid() == 0:
        os.lchown(disk / "run" / "checkpoints", 65534, 65534)
        with pytest.raises(ConfigError, match="another user made"):
            check_links(tmp_path / "run")


def test_start_refuses_a_folder_with_a_linked_checkpoint_and_leaves_the_others_alone(
    starter: Starter, victim: Path
) -> None:
    """Who deletes the oldest, or one without an end, would delete another run's."""
    words = ("model=mlp", "model.hidden=[8]", "train.steps=2", "run.name=r")
    starter.train(1, *words, name="r")
    run = starter.folder / "runs/r"
    (run / "checkpoints" / "step_00000001").symlink_to(victim)
    (run / "summary.json").unlink()
    ended = starter.run(1, *words)
    assert (ended.codes, ended.output.count("\n")) == ([2], 1)
    assert "step_00000001 is a link" in ended.output

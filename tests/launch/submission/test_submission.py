"""What is submitted, and the folders that jobs live in, as other commands see them."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from phalanx.common.files import read_json, write_json
from phalanx.exit.codes import ConfigError
from phalanx.launch.commands.submit import submit
from phalanx.launch.submission import record
from phalanx.launch.submission.snapshot import SUBMITTED


def test_a_submission_that_is_removed_while_it_is_read_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by another submit, which takes away those that are over."""
    for name in ("a-1", "b-1"):
        folder = tmp_path / SUBMITTED / name
        folder.mkdir(parents=True)
        write_json(folder / "submission.json", {"job": "7", "runs": {"": str(tmp_path / name)}})

    def read_and_removed(path: Path) -> Any:
        found = read_json(path)
        if path.parent.name == "a-1":
            shutil.rmtree(path.parent)
        return found

    monkeypatch.setattr(record, "read_json", read_and_removed)
    assert [each.run.name for each in record.entries(tmp_path)] == ["b-1"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (
            ["task._target_=train.tasks.classification.Classification"],
            "Type task._target_=phalanx.tasks.Classification",
        ),
        (["task._target_=former.Mine"], "former.py:1 imports train.tasks.task"),
        (["task._target_=former.Mine", "--sweep", "optim.lr=1,2"], "Write there: from phalanx import Task"),
        (["task._target_=former.Mine", "--array=0-1", "seed=%a"], "Write there: from phalanx import Task"),
    ],
)
def test_a_job_that_would_end_with_a_name_of_before_is_not_submitted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], says: str
) -> None:
    """No target is imported for it: a login node may have no torch."""
    (tmp_path / "former.py").write_text("from train.tasks.task import Task\nraise SystemExit('it was imported')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    done = CliRunner().invoke(submit, ["--dry-run", "cluster.ranks_per_node=1", *words])
    assert isinstance(done.exception, ConfigError)
    assert says in str(done.exception)

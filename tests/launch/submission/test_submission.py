"""The folders that jobs live in, as other commands see them."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from phalanx.common.files import read_json, write_json
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

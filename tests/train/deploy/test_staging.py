"""An export appears whole or not at all, whoever else exports at the same time, and wherever it is killed."""

import os
import signal
from pathlib import Path

import pytest

from phalanx.train.deploy.export.staging import staged


def write(target: Path, text: str) -> None:
    with staged(target) as staging:
        (staging.folder / "model").write_text(text)
        staging.commit()


def write_and_fail(target: Path) -> None:
    with staged(target) as staging:
        (staging.folder / "model").write_text("half")
        raise ZeroDivisionError


def test_a_new_one_takes_the_place_of_one_of_before(tmp_path: Path) -> None:
    write(tmp_path / "onnx", "one")
    write(tmp_path / "onnx", "two")
    assert (tmp_path / "onnx" / "model").read_text() == "two"
    assert [path.name for path in tmp_path.iterdir()] == ["onnx"]


def test_what_fails_leaves_nothing(tmp_path: Path) -> None:
    write(tmp_path / "onnx", "one")
    with pytest.raises(ZeroDivisionError):
        write_and_fail(tmp_path / "onnx")
    assert (tmp_path / "onnx" / "model").read_text() == "one"
    assert [path.name for path in tmp_path.iterdir()] == ["onnx"]


def test_of_two_at_once_the_last_stays_and_neither_takes_the_others_files(tmp_path: Path) -> None:
    with staged(tmp_path / "onnx") as first:
        (first.folder / "model").write_text("first")
        with staged(tmp_path / "onnx") as second:
            assert first.folder.exists(), "it is under way"
            (second.folder / "model").write_text("second")
            second.commit()
        assert (tmp_path / "onnx" / "model").read_text() == "second"
        first.commit()
    assert (tmp_path / "onnx" / "model").read_text() == "first"
    assert [path.name for path in tmp_path.iterdir()] == ["onnx"]


def test_what_a_killed_one_left_goes_with_the_next(tmp_path: Path) -> None:
    write(tmp_path / "onnx", "one")
    if (pid := os.fork()) == 0:
        with staged(tmp_path / "onnx") as staging:
            (staging.folder / "model").write_text("half")
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)
    assert len(list(tmp_path.iterdir())) == 2
    assert (tmp_path / "onnx" / "model").read_text() == "one"
    write(tmp_path / "onnx", "two")
    assert [path.name for path in tmp_path.iterdir()] == ["onnx"]

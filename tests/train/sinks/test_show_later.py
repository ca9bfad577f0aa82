"""What evaluations show is drawn and written while training goes on, bounded in number, and kept of few evaluations."""

import logging
import threading
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from phalanx.config.metric_direction import WatchedMetric
from phalanx.config.schema import Mode
from phalanx.train.sinks.evaluation_files import EvaluationFiles
from phalanx.train.sinks.show_later import MOST_WAITING, ShowLater
from phalanx.train.sinks.shown import Image, Shown, Text
from phalanx.train.sinks.shown_retention import ShownRetention
from phalanx.train.sinks.sink import FanOut, Sink


class Kept(Sink):
    def __init__(self) -> None:
        self.lines: list[object] = []
        self.steps: list[object] = []
        self.names: list[str] = []
        self.threads: set[str] = set()

    def write(self, line: Mapping[str, object]) -> None:
        self.lines.append(line["step"])

    def event(self, event: Mapping[str, object]) -> None:
        pass

    def show(self, line: Mapping[str, object], shown: Mapping[str, Shown]) -> None:
        self.steps.append(line["step"])
        self.names += shown
        self.threads.add(threading.current_thread().name)

    def close(self, summary: Mapping[str, object] | None) -> None:
        self.lines.append("closed")


def at(step: int, split: str = "val", **metrics: float) -> dict[str, object]:
    return {"step": step, "split": split, "time": 1.0, **metrics}


def test_training_goes_on_while_a_picture_is_drawn_and_the_end_waits_for_it() -> None:
    kept, gate = Kept(), threading.Event()
    sink = ShowLater(FanOut([kept]))

    def drawn() -> "np.ndarray[tuple[int, ...], np.dtype[np.uint8]]":
        assert gate.wait(30)
        return np.zeros((2, 2), np.uint8)

    sink.show(at(1), {"picture": Image(drawn)})
    sink.write(at(2))
    assert (kept.lines, kept.steps) == ([2], []), "a line is not held up"
    gate.set()
    sink.close({})
    assert (kept.lines, kept.steps, kept.threads) == ([2, "closed"], [1], {"shown"})


def test_evaluations_that_come_too_fast_are_left_out_with_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    kept, gate, begun = Kept(), threading.Event(), threading.Event()
    sink = ShowLater(FanOut([kept]))

    def drawn() -> "np.ndarray[tuple[int, ...], np.dtype[np.uint8]]":
        begun.set()
        assert gate.wait(30)
        return np.zeros((2, 2), np.uint8)

    sink.show(at(0), {"picture": Image(drawn)})
    assert begun.wait(30)
    with caplog.at_level(logging.WARNING):
        for step in range(1, MOST_WAITING + 4):
            sink.show(at(step), {"note": Text("a")})
    assert caplog.text.count("evaluations come faster") == 1
    gate.set()
    sink.close(None)
    assert kept.steps == [0, *range(4, MOST_WAITING + 4)], "the newest are kept"


def test_a_picture_that_cannot_be_drawn_leaves_the_others(caplog: pytest.LogCaptureFixture) -> None:
    kept = Kept()
    sink = ShowLater(FanOut([kept]))
    with caplog.at_level(logging.WARNING):
        sink.show(at(1), {"bad": Image(lambda: np.zeros(7)), "good": Text("a")})
        sink.show(at(2), {"good": Text("b")})
        sink.close(None)
    assert kept.names == ["good", "good"]
    assert "bad of an evaluation is not shown: ConfigError: An Image has pixels of shape (7,)" in caplog.text


def steps(folder: Path, split: str = "val") -> list[int]:
    return sorted(int(path.name.rpartition("_")[2]) for path in (folder / "shown").glob(f"{split}_step_*"))


def test_the_newest_the_first_and_the_best_are_kept_and_what_comes_again_is_removed(tmp_path: Path) -> None:
    best = WatchedMetric("val", "loss", Mode.min)

    def files(step: int) -> EvaluationFiles:
        return EvaluationFiles(tmp_path, lambda: None, ShownRetention(tmp_path, step, 3, best))

    sink = files(0)
    lines = [at(step, loss=abs(step - 4.0)) for step in range(1, 11)]
    for line in lines:
        sink.write(line)
        for split in ("val", "hard"):
            sink.show({**line, "split": split}, {"note": Text("a")})
    assert steps(tmp_path) == steps(tmp_path, "hard") == [1, 4, 8, 9, 10]
    (tmp_path / "shown" / "test_step_00000010").mkdir()
    (tmp_path / "shown" / "of_the_user").mkdir()
    metrics = "".join(
        f'{{"step":{line["step"]},"split":"val","time":1.0,"loss":{line["loss"]}}}\n' for line in lines[:8]
    )
    (tmp_path / "metrics.jsonl").write_text(metrics)
    sink = files(8)
    assert steps(tmp_path) == [1, 4, 8]
    assert steps(tmp_path, "test") == []
    for step in range(9, 14):
        sink.write(at(step, loss=9.0))
        sink.show(at(step), {"note": Text("a")})
    assert steps(tmp_path) == [1, 4, 11, 12, 13], "the best of an earlier start is known"
    assert (tmp_path / "shown" / "of_the_user").is_dir()

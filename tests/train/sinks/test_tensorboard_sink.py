"""TensorBoard shows the curves of the run as it counts, also after a restart."""

import sys
from pathlib import Path

import pytest

from phalanx.train.sinks.tensorboard import TensorBoard


def record(folder: Path, begin: int, steps: range) -> None:
    sink = TensorBoard(folder, begin)
    for step in steps:
        sink.write({"step": step, "split": "train", "time": 100.0 + step, "loss": float(step), "accuracy": None})
    sink.event({"time": 1.0, "event": "checkpoint", "step": 1})
    sink.close({})


def curve(folder: Path, chart: str) -> list[tuple[int, float, float]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    return [(point.step, point.value, point.wall_time) for point in events.Scalars(chart)]


def test_a_curve_has_the_steps_and_times_of_the_record(tmp_path: Path) -> None:
    record(tmp_path, 0, range(1, 4))
    assert curve(tmp_path, "train/loss") == [(1, 1.0, 101.0), (2, 2.0, 102.0), (3, 3.0, 103.0)]


def test_a_restart_takes_back_what_it_will_do_again(tmp_path: Path) -> None:
    record(tmp_path, 0, range(0, 10))
    record(tmp_path, 4, range(5, 8))
    assert [step for step, _, _ in curve(tmp_path, "train/loss")] == list(range(8))
    record(tmp_path, 0, range(0, 2))
    assert [step for step, _, _ in curve(tmp_path, "train/loss")] == [0, 1]


def test_without_the_package_it_says_what_to_type(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ValueError, match=r"pip install 'phalanx\[tensorboard\]'"):
        TensorBoard(tmp_path, 0)

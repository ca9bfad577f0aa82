"""A sink of one's own gets the run, and can neither hold it up nor end it."""

import json
import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from phalanx.compose.compose import compose
from phalanx.config.limits import check
from phalanx.exit.codes import ConfigError
from phalanx.train.engine.parts.config_targets import check_targets, targets
from phalanx.train.sinks import own_sink
from phalanx.train.sinks.own_sink import OwnSink
from phalanx.train.sinks.shown import Text
from phalanx.train.sinks.sink import FanOut, Sink
from tests.ranks import Starter
from tests.train.sinks.own_sinks import Hanging, Kept, Leaving, Raising

HERE = "tests.train.sinks.own_sinks"
MLP = ("model=mlp", "model.hidden=[8]", "train.steps=10", "eval.every=5", "checkpoint.every=5")
CONFIG: dict[str, Any] = {"optim": {"_target_": "Adam"}, "model": {}, "mlflow": {"uri": None}}
LINE = {"step": 1, "split": "train", "time": 1.0, "loss": 0.5}


def opened(make: Callable[[], Sink], folder: Path) -> OwnSink:
    def build() -> Sink:
        sink = make()
        sink.open(folder, CONFIG, 0)
        return sink

    return OwnSink("sinks.mine", build)


def calls(path: Path) -> list[list[Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_sink_of_ones_own_gets_the_run_from_its_folder_to_its_summary_and_goes_on_after_a_restart(
    starter: Starter,
) -> None:
    mine = f"sinks.mine={{_target_: {HERE}.Kept, file: mine.jsonl}}"
    words = (mine, *MLP, "mlflow.uri='http://me:hunter22@127.0.0.1:9'")
    run = starter.train(2, *words, name="own")
    kept = calls(run.folder / "mine.jsonl")
    assert kept[0] == ["open", {"step": 0, "optim": "torch.optim.Adam", "model": kept[0][1]["model"],
                                "uri": "http://me:[redacted]@127.0.0.1:9"}]  # fmt: skip
    assert kept[0][1]["model"]["hidden"] == [8]
    assert [what for call, what in kept if call == "write"] == run.metrics()
    assert [what for call, what in kept if call == "event"] == run.events()
    assert kept[-1][0] == "close"
    assert kept[-1][1]["weights_sha256"] == run.sha256
    (run.folder / "summary.json").unlink()
    starter.train(2, *words, name="own")
    assert [what["step"] for call, what in calls(run.folder / "mine.jsonl") if call == "open"] == [0, 10]


@pytest.mark.parametrize("where", ["init", "open", "write", "event", "close"])
def test_a_sink_that_raises_is_one_warning_with_its_own_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, where: str
) -> None:
    sinks = FanOut([opened(lambda: Raising(where), tmp_path)])
    for _ in range(3):
        sinks.write(LINE)
        sinks.event({"event": "start"})
        sinks.sync()
    sinks.close({})
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    said = f"sinks.mine takes no more of this run, which goes on: RuntimeError: unplugged in {where}, at "
    assert caplog.messages[0].startswith(said)
    assert "own_sinks.py:" in caplog.messages[0]
    if where in ("write", "event"):
        assert [call for call, _ in calls(tmp_path / "raising.jsonl")].count("close") == 1, "so that it can tidy up"


def test_a_sink_that_leaves_the_interpreter_ends_nothing_but_itself(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sink = opened(lambda: Leaving("leaving.jsonl"), tmp_path)
    sink.write(LINE)
    sink.close({})
    assert [message.partition(",")[0] for message in caplog.messages] == ["sinks.mine takes no more of this run"]
    assert "SystemExit: 3" in caplog.text


def test_a_sink_that_hangs_holds_up_no_line_and_the_end_by_no_more_than_its_time(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(own_sink, "MOST_WAITING", 50)
    monkeypatch.setattr(own_sink, "FINISH_S", 0.2)
    sinks = FanOut([opened(lambda: Hanging("hanging.jsonl"), tmp_path) for _ in range(5)])
    for _ in range(100):
        sinks.write(LINE)
    began_s = time.monotonic()
    sinks.close({})
    assert time.monotonic() - began_s < 5 * 0.2, "they are waited for side by side"
    assert sum("too slow" in message for message in caplog.messages) == 5
    assert sum("did not take all of this run in 0.2 s" in message for message in caplog.messages) == 5


def test_it_gets_what_a_task_shows_and_predicts(tmp_path: Path) -> None:
    got: list[Any] = []

    class Shown(Kept):
        def show(self, line: Any, shown: Any) -> None:
            got.append((line, shown))

        def predictions(self, line: Any, rows: Any) -> None:
            got.append((line, rows))

    sink, item, rows = opened(lambda: Shown("shown.jsonl"), tmp_path), Text("a"), [{"index": 0, "label": 1}]
    sink.show(LINE, {"note": item})
    sink.predictions(LINE, rows)
    sink.close(None)
    assert got == [(LINE, {"note": item}), (LINE, rows)]


def test_lines_come_from_one_thread_and_all_before_the_end(tmp_path: Path) -> None:
    threads: set[int] = set()

    class Slow(Kept):
        def write(self, line: Any) -> None:
            threads.add(threading.get_ident())
            super().write(line)

    sink = opened(lambda: Slow("slow.jsonl"), tmp_path)
    for step in range(500):
        sink.write({**LINE, "step": step})
    sink.close(None)
    kept = calls(tmp_path / "slow.jsonl")
    assert [what["step"] for call, what in kept if call == "write"] == list(range(500))
    assert kept[-1] == ["close", None]
    assert len(threads) == 1
    assert threading.get_ident() not in threads


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("sinks.mine.level=3", "sinks.mine={level: 3} names no class. Type sinks.mine._target_="),
        ("+sinks.mine=3", "sinks.mine=3 names no class"),
        ("+sinks.mine._target_=torch.nn.Linear", "sinks.mine"),
        (f"+sinks.mine={{_target_: {HERE}.Kept, file: a, levle: 3}}", "sinks.mine.levle is no argument of Kept"),
        (f"+sinks.mine._target_={HERE}.Kpet", "Did you mean"),
    ],
)
def test_a_sink_that_cannot_be_is_refused_before_training(word: str, says: str) -> None:
    config = compose([word]).config

    def checked() -> None:
        check(config, 1)
        check_targets(config, targets(config, foreign=False))

    with pytest.raises(ConfigError) as refused:
        checked()
    assert says in str(refused.value)

"""One line reaches every sink, and one sink's failure reaches nobody but the log, unless it keeps the record."""

import logging
from collections.abc import Mapping
from pathlib import Path

import pytest

from phalanx.train.sinks.jsonl import JsonLines
from phalanx.train.sinks.sink import FanOut, NullSink, Sink


class Listener(Sink):
    """Notes each call in a list shared with others, and raises in the one named `fails_in`."""

    def __init__(self, name: str, heard: list[str], fails_in: str = "") -> None:
        self.name, self.heard, self.fails_in = name, heard, fails_in

    def _hear(self, call: str) -> None:
        self.heard.append(f"{self.name} {call}")
        if call == self.fails_in:
            raise ConnectionError("unplugged")

    def write(self, line: Mapping[str, object]) -> None:
        self._hear("write")

    def event(self, event: Mapping[str, object]) -> None:
        self._hear("event")

    def sync(self) -> None:
        self._hear("sync")

    def close(self, summary: Mapping[str, object] | None) -> None:
        self._hear("close" if summary is None else "close with summary")


class Record(Listener):
    essential = True


def test_everything_reaches_every_sink_in_order() -> None:
    heard: list[str] = []
    sinks = FanOut([Listener("a", heard), Listener("b", heard)])
    sinks.write({"step": 1})
    sinks.event({"event": "start"})
    sinks.sync()
    sinks.close({})
    sinks.close({})
    assert heard == [f"{name} {call}" for call in ("write", "event", "sync", "close with summary") for name in "ab"]


@pytest.mark.parametrize("call", ["write", "event", "sync"])
def test_a_sink_that_fails_is_dropped_with_one_warning(call: str, caplog: pytest.LogCaptureFixture) -> None:
    heard: list[str] = []
    sinks = FanOut([Listener("a", heard, fails_in=call), Listener("b", heard)])
    for _ in range(3):
        sinks.write({"step": 1})
        sinks.event({"event": "start"})
        sinks.sync()
    sinks.close({})
    assert heard.count(f"a {call}") == 1
    assert heard.count("a close") == 1
    assert heard.count(f"b {call}") == 3
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "Listener" in caplog.text
    assert "ConnectionError: unplugged" in caplog.text


def test_a_sink_that_also_fails_to_close_is_still_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(Listener):
        def close(self, summary: Mapping[str, object] | None) -> None:
            raise OSError("stuck")

    sinks = FanOut([Broken("a", [], fails_in="write")])
    sinks.write({"step": 1})
    sinks.close({})
    assert len(caplog.records) == 1


def test_the_record_failing_ends_the_run() -> None:
    sinks = FanOut([Record("record", [], fails_in="write")])
    with pytest.raises(ConnectionError, match="unplugged"):
        sinks.write({"step": 1})


def test_every_sink_is_closed_even_if_the_record_fails_to_close() -> None:
    heard: list[str] = []
    sinks = FanOut([Record("record", heard, fails_in="close with summary"), Listener("b", heard)])
    with pytest.raises(ConnectionError, match="unplugged"):
        sinks.close({})
    assert heard == ["record close with summary", "b close with summary"]


def test_the_run_s_own_files_are_the_record(tmp_path: Path) -> None:
    sink = JsonLines(tmp_path, 0, lambda: None)
    sink.close({})
    with pytest.raises(ValueError, match="closed file"):
        FanOut([sink]).write({"step": 1})


def test_other_ranks_are_silent(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sink = NullSink()
    sink.write({"step": 1})
    sink.event({"event": "start"})
    sink.sync()
    sink.close({})
    assert capsys.readouterr() == ("", "")

"""Sink: the interface of every tracker, and the fan-out of one line to all of them."""

import contextlib
import logging
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import ClassVar, final

from .shown import Shown

logger = logging.getLogger(__name__)


class Sink(ABC):
    """Takes the lines of metrics.jsonl and events.jsonl as they happen. Called by rank 0's main thread alone.

    But for `show` and `predictions`, which another thread of it calls, one at a time.
    """

    essential: ClassVar[bool] = False
    """Whether an error of this sink ends the run. Others are closed and dropped, and training goes on."""

    waits_to_close: ClassVar[bool] = False
    """Whether `close` waits for another process or thread, so that such sinks are closed side by side."""

    def open(self, folder: Path, config: Mapping[str, object], step: int) -> None:
        """Begin, once, before all else. A sink of your own needs nothing but this to know the run.

        `folder` is the run's folder, `config` the whole config without secrets, nested as in resolved.yaml, and `step` the
        step that this start continues from, 0 for a new run: lines past it that an earlier start wrote come once more.
        """
        return

    @abstractmethod
    def write(self, line: Mapping[str, object]) -> None:
        """Take one line: step, split ("train" or "eval"), time (s since 1970), then the numbers."""

    @abstractmethod
    def event(self, event: Mapping[str, object]) -> None:
        """Take one event: time (s since 1970), event, step, then whatever belongs to it."""

    @abstractmethod
    def close(self, summary: Mapping[str, object] | None) -> None:
        """End, once. `summary` is None when the run did not finish."""

    def show(self, line: Mapping[str, object], shown: Mapping[str, Shown]) -> None:
        """Take what the task shows of an evaluation, by name. `line` has step, split and time.

        Each item lies in the run folder by then, as a file: `phalanx.run_folder.names.shown_file`. Called by another thread
        than the rest, once it is drawn, and perhaps after later lines. A sink that has no place for it leaves this out.
        """
        return

    def predictions(self, line: Mapping[str, object], rows: Sequence[Mapping[str, object]]) -> None:
        """Take the predictions of an evaluation, by index of the sample. `line` has step, split and time."""
        return

    def sync(self) -> None:
        """Make everything written so far durable, if the sink supports it."""
        return


@final
class NullSink(Sink):
    """Discards everything: the sink of all ranks but 0."""

    def write(self, line: Mapping[str, object]) -> None:
        pass

    def event(self, event: Mapping[str, object]) -> None:
        pass

    def close(self, summary: Mapping[str, object] | None) -> None:
        pass


@final
class FanOut(Sink):
    """Hands everything to each of `sinks`, in their order.

    A sink that raises is closed and dropped with one warning; the error of an essential one is raised.
    """

    def __init__(self, sinks: Sequence[Sink]) -> None:
        self._sinks = list(sinks)

    def write(self, line: Mapping[str, object]) -> None:
        self._each(lambda sink: sink.write(line))

    def event(self, event: Mapping[str, object]) -> None:
        self._each(lambda sink: sink.event(event))

    def show(self, line: Mapping[str, object], shown: Mapping[str, Shown]) -> None:
        self._each(lambda sink: sink.show(line, shown))

    def predictions(self, line: Mapping[str, object], rows: Sequence[Mapping[str, object]]) -> None:
        self._each(lambda sink: sink.predictions(line, rows))

    def sync(self) -> None:
        self._each(lambda sink: sink.sync())

    def close(self, summary: Mapping[str, object] | None) -> None:
        """Close every sink, also after one failed. A second call does nothing.

        Those that wait to close come last, side by side: all together take as long as the slowest of them.
        """

        def close(sink: Sink) -> None:
            self._guard(sink, lambda sink: sink.close(summary))

        waiting = [sink for sink in self._sinks if sink.waits_to_close]
        with contextlib.ExitStack() as closing:
            closing.callback(_side_by_side, close, waiting)
            for sink in reversed(self._sinks):
                if not sink.waits_to_close:
                    closing.callback(close, sink)
            self._sinks.clear()

    def _each(self, call: Callable[[Sink], None]) -> None:
        for sink in tuple(self._sinks):
            if not self._guard(sink, call):
                with contextlib.suppress(ValueError):  # another thread's call has failed there, too
                    self._sinks.remove(sink)
                with contextlib.suppress(Exception):
                    sink.close(None)

    def _guard(self, sink: Sink, call: Callable[[Sink], None]) -> bool:
        try:
            call(sink)
        except Exception as error:
            if sink.essential:
                raise
            name = type(sink).__name__
            logger.warning("%s takes no more of this run, which goes on: %s: %s", name, type(error).__name__, error)
            return False
        return True


def _side_by_side(close: Callable[[Sink], None], sinks: Sequence[Sink]) -> None:
    """`close` guards itself: it raises for essential sinks alone, and none of these is."""
    threads = [threading.Thread(target=close, args=(sink,)) for sink in sinks[1:]]
    for thread in threads:
        thread.start()
    for sink in sinks[:1]:
        close(sink)
    for thread in threads:
        thread.join()

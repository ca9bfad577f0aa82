"""Draws, encodes and writes what evaluations show in a thread, while training goes on."""

import logging
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, final

from phalanx.config.limits import FINISH_S

from .shown import Shown
from .sink import Sink

MOST_WAITING = 8  # evaluations that are handed over and not drawn yet

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class _Handed:
    """What the thread is to do."""

    call: Callable[[], None]
    may_drop: bool


@final
class ShowLater(Sink):
    """Hands everything on to `sink`: what is shown, and predictions, in a thread of its own, all else at once.

    Of what is shown at most `MOST_WAITING` evaluations wait; the oldest are left out, with one warning. Predictions all
    come. An item that cannot be drawn is left out with a warning, too. `close` waits for the rest, `FINISH_S` at most.
    """

    essential: ClassVar[bool] = True  # `sink` has those that are, and guards itself

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._waiting: deque[_Handed] = deque()
        self._changed = threading.Condition()
        self._ends = self._dropping = False
        self._thread: threading.Thread | None = None

    def write(self, line: Mapping[str, object]) -> None:
        self._sink.write(line)

    def event(self, event: Mapping[str, object]) -> None:
        self._sink.event(event)

    def sync(self) -> None:
        self._sink.sync()

    def show(self, line: Mapping[str, object], shown: Mapping[str, Shown]) -> None:
        self._hand_over(_Handed(lambda: self._show(dict(line), dict(shown)), may_drop=True))

    def predictions(self, line: Mapping[str, object], rows: Sequence[Mapping[str, object]]) -> None:
        self._hand_over(_Handed(lambda: self._sink.predictions(line, rows), may_drop=False))

    def close(self, summary: Mapping[str, object] | None) -> None:
        with self._changed:
            self._ends = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(FINISH_S)
            if self._thread.is_alive():
                logger.warning("what the last evaluations show was not written in %g s, and is left out", FINISH_S)
                with self._changed:
                    self._waiting.clear()
        self._sink.close(summary)

    def _hand_over(self, handed: "_Handed") -> None:
        with self._changed:
            if self._ends:
                return
            shown = [each for each in self._waiting if each.may_drop]
            if handed.may_drop and len(shown) == MOST_WAITING:
                self._waiting.remove(shown[0])
                if not self._dropping:
                    logger.warning(
                        "evaluations come faster than what they show is drawn and written: some of it is left out. "
                        "Evaluate more rarely, or type log.shown=0"
                    )
                    self._dropping = True
            self._waiting.append(handed)
            self._changed.notify_all()
        if self._thread is None:  # most runs show nothing
            self._thread = threading.Thread(target=self._work, name="shown", daemon=True)
            self._thread.start()

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: bool(self._waiting) or self._ends)
                if not self._waiting:
                    return
                handed = self._waiting.popleft()
            try:
                handed.call()
            except Exception as error:
                logger.warning("something of an evaluation was not shown: %s: %s", type(error).__name__, error)

    def _show(self, line: Mapping[str, object], shown: Mapping[str, Shown]) -> None:
        drawn = {}
        for name, item in shown.items():
            try:
                item.content  # noqa: B018  # drawn now, and kept
                drawn[name] = item
            except Exception as error:
                logger.warning("%s of an evaluation is not shown: %s: %s", name, type(error).__name__, error)
        if drawn:
            self._sink.show(line, drawn)

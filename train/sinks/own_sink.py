"""A sink of the user's own, in a thread, so that training neither waits for it nor fails with it."""

import logging
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import ClassVar, final

from phalanx.config.limits import FINISH_S
from phalanx.exit import user_error

from .shown import Shown
from .sink import Sink

MOST_WAITING = 10_000  # lines and events that are handed over and not taken yet

logger = logging.getLogger(__name__)

Call = Callable[[Sink], None]


@final
class OwnSink(Sink):
    """Hands everything to the sink that `build` makes, and that is called `name`, in the order in which it comes.

    While `MOST_WAITING` calls are waiting, more are dropped. `close` takes `FINISH_S` at most. The first error, of `build`,
    too, is one warning, after which the sink is closed and gets nothing more.
    """

    waits_to_close: ClassVar[bool] = True

    def __init__(self, name: str, build: Callable[[], Sink]) -> None:
        self._name = name
        self._build = build
        self._calls: queue.Queue[Call | None] = queue.Queue(MOST_WAITING)
        self._dropping = False
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def write(self, line: Mapping[str, object]) -> None:
        taken = dict(line)
        self._hand_over(lambda sink: sink.write(taken))

    def event(self, event: Mapping[str, object]) -> None:
        taken = dict(event)
        self._hand_over(lambda sink: sink.event(taken))

    def show(self, line: Mapping[str, object], shown: Mapping[str, Shown]) -> None:
        taken, items = dict(line), dict(shown)
        self._hand_over(lambda sink: sink.show(taken, items))

    def predictions(self, line: Mapping[str, object], rows: Sequence[Mapping[str, object]]) -> None:
        taken, copied = dict(line), list(rows)
        self._hand_over(lambda sink: sink.predictions(taken, copied))

    def sync(self) -> None:
        self._hand_over(lambda sink: sink.sync())

    def close(self, summary: Mapping[str, object] | None) -> None:
        deadline_s = time.monotonic() + FINISH_S
        for call in (lambda sink: sink.close(summary), None):
            with suppress(queue.Full):
                self._calls.put(
                    call, timeout=max(0.0, deadline_s - time.monotonic()) if self._thread.is_alive() else 0.0
                )
        self._thread.join(max(0.0, deadline_s - time.monotonic()))
        if self._thread.is_alive():
            logger.warning("%s did not take all of this run in %g s, and what is left is dropped", self._name, FINISH_S)

    def _hand_over(self, call: Call) -> None:
        if not self._thread.is_alive():
            return
        try:
            self._calls.put_nowait(call)
        except queue.Full:
            if not self._dropping:
                logger.warning("%s is too slow for this run: some lines are missing there", self._name)
                self._dropping = True

    def _work(self) -> None:
        sink = None
        try:
            sink = self._build()
            while (call := self._calls.get()) is not None:
                call(sink)
        except BaseException as error:  # sys.exit() among them
            where = user_error.user_line(error)
            told = f"{user_error.message(error)}{'' if where is None else f', at {where}'}"
            logger.warning("%s takes no more of this run, which goes on: %s", self._name, told)
            if sink is not None:
                with suppress(BaseException):
                    sink.close(None)

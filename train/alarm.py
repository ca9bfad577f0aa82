"""One rank's failure reaches every rank: the first to fail leaves its word in the launcher's store, the others wait there.

A rank can be stuck in a collective that will never end, where no exception finds it. So each rank has a thread that
waits for the word, and that ends the process when its main thread does not leave by itself in time.
"""

import json
import logging
import threading
from dataclasses import asdict, dataclass
from datetime import timedelta

from torch.distributed import DistNetworkError, DistStoreError, Store

from train.refusal import end

_KEY = "phalanx/failure"
_ACKNOWLEDGED = "phalanx/acknowledged"
_LEAVE_S = 1.0  # what a main thread gets to leave by itself, and the first to fail waits for the others to have heard
_FOREVER = timedelta(days=365)

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Failure:
    rank: int
    host: str
    code: int
    text: str  # the traceback, or the message of an error that is for people

    def __str__(self) -> str:
        return f"rank {self.rank} on {self.host} failed first:\n{self.text}"


class Alarm:
    """Every rank makes one after joining and closes it before it leaves."""

    def __init__(self, store: Store, rank: int, size: int) -> None:
        self._store = store
        self._rank = rank
        self._others = size - 1
        self._closed = threading.Event()
        self._heard = threading.Event()
        self._failure: Failure | None = None
        self._thread = threading.Thread(target=self._watch, args=(store.clone(),), name="alarm", daemon=True)
        self._thread.start()

    def sound(self, failure: Failure) -> Failure:
        """Tell all ranks of `failure` and return the first one told, which may be another rank's."""
        words = json.dumps(asdict(failure))
        first = Failure(**json.loads(self._store.compare_set(_KEY, "", words)))
        return first

    def wait_until_heard(self) -> None:
        """Give the other ranks a moment to hear before this one's exit makes the launcher end them."""
        try:
            self._store.wait([_ACKNOWLEDGED], timedelta(seconds=_LEAVE_S))
        except (DistStoreError, DistNetworkError):
            logger.warning("not every rank has acknowledged the failure within %.0f s", _LEAVE_S)

    def heard(self, wait_s: float) -> Failure | None:
        """Another rank's failure, if one is told within `wait_s`."""
        self._heard.wait(wait_s)
        return self._failure if self._failure is not None and self._failure.rank != self._rank else None

    def close(self) -> None:
        """From here on nobody's failure concerns this rank."""
        self._closed.set()

    def _watch(self, store: Store) -> None:
        try:
            store.wait([_KEY], _FOREVER)
            failure = Failure(**json.loads(store.get(_KEY)))
            if failure.rank == self._rank:
                return
            if store.add(f"{_ACKNOWLEDGED}/count", 1) == self._others:
                store.set(_ACKNOWLEDGED, "")
        except (DistStoreError, DistNetworkError, RuntimeError) as error:
            if not self._closed.is_set():
                logger.error("the launcher's store is gone, so the launcher is, too: %s", error)
            self._leave_unless_closed(1)
            return
        logger.info("%s", failure)
        self._failure = failure
        self._heard.set()
        self._leave_unless_closed(failure.code)

    def _leave_unless_closed(self, code: int) -> None:
        if not self._closed.wait(_LEAVE_S):
            end(code)

"""Broadcast one rank's failure to all ranks through their store, also to ranks that are stuck in a collective.

No exception reaches a rank that is stuck in a collective that will never end. So each rank has a thread that waits for
the failure, and that ends the process when its main thread does not leave by itself before a timeout.

The store's keys, in the order in which a failure writes them: `first`, a lock taken by the rank that failed first;
`failure`, its message; `heard/N`, each other rank's acknowledgement, which dead ranks do not give; `said`, the final
message, written when it is on the console and the ranks may leave. A run that ends well leaves an empty `failure`.
"""

import json
import logging
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict
from datetime import timedelta

from torch.distributed import Store  # type: ignore[attr-defined]

from phalanx.exit import cause_file
from phalanx.exit.codes import LAUNCHER, ExitCode, Failure
from phalanx.exit.messages import end, say

ANSWER_S = 0.7  # timeout of the other ranks' acknowledgement
LEAVE_S = 0.7  # timeout of the main thread's own exit, once the failure is printed
_NO_TIMEOUT = timedelta(days=365)
_POLL_S = 0.01

logger = logging.getLogger(__name__)


class FailureChannel:
    """All ranks make one after the rendezvous. `keeper` is the rank that holds the store; None: the launcher."""

    def __init__(
        self, store: Store, rank: int, hosts: Sequence[str], keeper: int | None, told: Callable[[], None]
    ) -> None:
        """`told` is called when a failure arrives: the store is gone soon, so its other users stop."""
        self._store = store.clone()  # each client of the store serves one thread at a time
        self._rank = rank
        self._hosts = hosts
        self._keeper = keeper
        self._told = told
        self._over = threading.Event()
        self._received = threading.Event()
        self._failure: Failure | None = None
        self._thread = threading.Thread(target=self._watch, args=(store.clone(),), name="peer failure", daemon=True)
        self._thread.start()

    def try_lock(self) -> bool:
        """Whether this rank is the first to fail. False, too, when the store is gone."""
        try:
            return self._store.compare_set("first", "", str(self._rank)) == str(self._rank).encode()
        except RuntimeError:
            return False

    def broadcast(self, failure: Failure) -> list[int]:
        """After `try_lock`: tell all ranks; returns those that did not acknowledge within `ANSWER_S`."""
        with suppress(RuntimeError):
            self._store.set("failure", json.dumps(asdict(failure)))
        return self._without_answer()

    def release(self, failure: Failure) -> None:
        """After `broadcast`: the error is printed, and the other ranks may exit with this failure."""
        with suppress(RuntimeError):
            self._store.set("said", json.dumps(asdict(failure)))
        if self._rank == self._keeper:
            time.sleep(10 * _POLL_S)  # so that they read it before the store is gone

    def peer_failure(self, wait_s: float) -> Failure | None:
        """The failure of another rank, if one arrives within `wait_s`; returns when that rank has printed it."""
        self._received.wait(wait_s)
        return self._failure

    @property
    def prints_errors(self) -> bool:
        """Whether this rank prints the error when the store is gone."""
        return self._rank == (0 if self._keeper is None else 1)

    def disconnected(self, what: str, code: int, hung: Failure | None = None) -> Failure:
        """The failure when the store is gone: that, or this rank's own hang (`hung`). At most one rank prints it."""
        keeper = "the launcher" if self._keeper is None else f"rank {self._keeper}"
        host = "" if self._keeper is None else self._hosts[self._keeper]
        rank = LAUNCHER if self._keeper is None else self._keeper
        failure = hung or Failure(rank, host, code, f"{keeper}, which holds the ranks' store, {what}")
        logger.info("leaving because %s", failure.text)
        if self.prints_errors:
            say(f"error on rank {self._rank}: {failure.text}")
            cause_file.write(failure.code, rank, failure.text, host or None)
        return failure

    def ignore(self) -> None:
        """From now on another rank's failure does not end this one."""
        self._over.set()

    def close(self) -> None:
        """End of a run that succeeded. All ranks call it after a barrier."""
        if self._rank == 0:
            self._store.set("failure", "")
        self._thread.join(LEAVE_S)
        if self._rank == self._keeper:
            self._without_answer()

    def _without_answer(self) -> list[int]:
        """The other ranks that have not answered within `ANSWER_S`; returns as soon as there are none."""
        silent = [rank for rank in range(len(self._hosts)) if rank != self._rank]
        until = time.monotonic() + ANSWER_S
        with suppress(RuntimeError):
            while silent and time.monotonic() < until:
                time.sleep(_POLL_S)
                silent = [rank for rank in silent if not self._store.check([f"heard/{rank}"])]
        return silent

    def _watch(self, store: Store) -> None:
        try:
            store.wait(["failure"], _NO_TIMEOUT)
            word = store.get("failure")
            self._told()
            store.set(f"heard/{self._rank}", "")
            if not word or self._over.is_set():
                return
            failure = Failure(**json.loads(word))
            if failure.rank == self._rank:
                return
            logger.info("leaving because %s", failure)
            self._failure = failure
            until = time.monotonic() + 2 * ANSWER_S
            while not store.check(["said"]) and time.monotonic() < until:
                time.sleep(_POLL_S)
            if store.check(["said"]):
                self._failure = Failure(**json.loads(store.get("said")))
        except RuntimeError:
            if self._over.is_set():
                return
            self._failure = self._failure or self.disconnected("is gone", ExitCode.BUG)
        self._received.set()
        if not self._over.wait(LEAVE_S):
            end(self._failure.code)

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

ANSWER_S = 0.7  # what the other ranks get to say that they heard
LEAVE_S = 0.7  # what a main thread gets to leave by itself, once all is said
_FOREVER = timedelta(days=365)
_LOOK_S = 0.01

logger = logging.getLogger(__name__)


class FailureChannel:
    """Every rank makes one after joining. `keeper` is the rank that holds the store, None where the launcher does."""

    def __init__(
        self, store: Store, rank: int, hosts: Sequence[str], keeper: int | None, told: Callable[[], None]
    ) -> None:
        """`told` is called when a failure is: who uses the store may stop, as it is gone soon."""
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

    def claim(self) -> bool:
        """Whether this rank is the first to fail. False, too, when the store is gone."""
        try:
            return self._store.compare_set("first", "", str(self._rank)) == str(self._rank).encode()
        except RuntimeError:
            return False

    def broadcast(self, failure: Failure) -> list[int]:
        """After `claim`: tell all ranks; returns those that did not answer within `ANSWER_S`."""
        with suppress(RuntimeError):
            self._store.set("failure", json.dumps(asdict(failure)))
        return self._without_answer()

    def release(self, failure: Failure) -> None:
        """After `broadcast`: all was said, the other ranks may go with this failure."""
        with suppress(RuntimeError):
            self._store.set("said", json.dumps(asdict(failure)))
        if self._rank == self._keeper:
            time.sleep(10 * _LOOK_S)  # so that they find it before the store is gone

    def peer_failure(self, wait_s: float) -> Failure | None:
        """The failure of another rank, if one is told within `wait_s`; returns when that rank has said all."""
        self._received.wait(wait_s)
        return self._failure

    @property
    def speaks(self) -> bool:
        """Whether this rank tells of it when the store cannot be asked who does."""
        return self._rank == (0 if self._keeper is None else 1)

    def disconnected(self, what: str, code: int, hung: Failure | None = None) -> Failure:
        """The store cannot be asked: that is the failure then, unless this rank was to tell of one that is `hung`.

        One rank at most says so.
        """
        keeper = "the launcher" if self._keeper is None else f"rank {self._keeper}"
        host = "" if self._keeper is None else self._hosts[self._keeper]
        rank = LAUNCHER if self._keeper is None else self._keeper
        failure = hung or Failure(rank, host, code, f"{keeper}, which holds the ranks' store, {what}")
        logger.info("leaving because %s", failure.text)
        if self.speaks:
            say(f"error on rank {self._rank}: {failure.text}")
            cause_file.write(failure.code, rank, failure.text, host or None)
        return failure

    def ignore(self) -> None:
        """From here on no other rank's failure ends this one."""
        self._over.set()

    def close(self) -> None:
        """End of a run that went well. All ranks call it after one another has been waited for."""
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
                time.sleep(_LOOK_S)
                silent = [rank for rank in silent if not self._store.check([f"heard/{rank}"])]
        return silent

    def _watch(self, store: Store) -> None:
        try:
            store.wait(["failure"], _FOREVER)
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
                time.sleep(_LOOK_S)
            if store.check(["said"]):
                self._failure = Failure(**json.loads(store.get("said")))
        except RuntimeError:
            if self._over.is_set():
                return
            self._failure = self._failure or self.disconnected("is gone", ExitCode.BUG)
        self._received.set()
        if not self._over.wait(LEAVE_S):
            end(self._failure.code)

"""Agree on the step after which all ranks stop: a stop request that reaches one rank reaches all.

No collective is spent on it. Every rank has a thread that polls for a request: in its own sources (signals, the stop
file), and in the ranks' store, where the first rank to get one puts it. The thread then holds its main thread before its
next step and tells the step that it has come to. All stop one step after the furthest of them. Main threads take no part,
so it does not matter what they wait for, and ranks may be many steps apart, as hosts are that queue work for GPUs.

When a rank is dead its step is never told. A main thread that was held longer than a timeout then decides that nothing
is agreed, and goes on into the collective that will name the dead rank. Keys of the store, for round N: `N/request`,
`N/step/RANK`, and `N/after`, which is written once: the number of steps after which all stop, or -1.
"""

import json
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict
from itertools import count

from torch.distributed import PrefixStore, Store  # type: ignore[attr-defined]

from phalanx.exit.codes import ExitCode
from phalanx.exit.messages import say
from phalanx.exit.signals import StopRequest

AGREE_S = 5.0  # timeout of a main thread that waits for the agreement
_POLL_S = 0.2
_NOTHING = -1


class StopAgreement:
    """One rank's part in the agreement. All ranks make one."""

    def __init__(
        self,
        store: Store,
        rank: int,
        size: int,
        sources: Sequence[Callable[[], StopRequest | None]],
        until: int | None = None,
    ) -> None:
        """`sources` are polled in turn for a stop request.

        After `until` steps all ranks stop without an agreement: the number is the same on all.
        """
        self._store = PrefixStore("stop", store.clone())  # a client of the store serves one thread at a time
        self._rank = rank
        self._size = size
        self._sources = sources
        self._until = until
        self._step = 0
        self._round = 0
        self._held = False
        self._decided = threading.Event()
        self._after = _NOTHING
        self._request: StopRequest | None = None
        self._over = threading.Event()
        watched = PrefixStore("stop", store.clone())
        self._thread = threading.Thread(target=self._watch, args=(watched,), name="stop", daemon=True)
        self._thread.start()

    def before(self, step: int) -> StopRequest | None:
        """Why all ranks stop now, after `step` steps, or None. Every main thread calls it before every step."""
        if self._until is not None and step >= self._until:
            return StopRequest(ExitCode.STOPPED, f"it was to go to step {self._until}")
        self._step = step  # before it looks: a thread that holds it later tells this step
        if self._held and self._agreed() and step >= self._after:
            return self._request
        return None

    def close(self) -> bool:
        """Stop polling. Returns whether the thread has ended; one that is blocked by a file server has not."""
        self._over.set()
        self._thread.join(2 * _POLL_S)
        return not self._thread.is_alive()

    def _agreed(self) -> bool:
        if not self._decided.wait(AGREE_S):
            return _decide(self._store, self._round, _NOTHING) != _NOTHING and self._decided.wait(AGREE_S)
        return self._after != _NOTHING

    def _watch(self, store: Store) -> None:
        """Poll round after round until all agree; after that for a second signal."""
        own: StopRequest | None = None
        with suppress(RuntimeError):  # the store is gone, and with it all ranks, soon
            for self._round in count():
                while not self._over.wait(_POLL_S) and not store.check([f"{self._round}/request"]):
                    own = own or self._poll()
                    if own is not None:
                        store.compare_set(f"{self._round}/request", "", json.dumps(asdict(own)))
                if self._over.is_set() or self._agree(store):
                    break
        while not self._over.wait(_POLL_S):
            self._poll()

    def _poll(self) -> StopRequest | None:
        requests = []
        for source in self._sources:
            with suppress(OSError):  # a file server that is down for a moment
                requests.append(source())
        return next((request for request in requests if request is not None), None)

    def _agree(self, store: Store) -> bool:
        found = json.loads(store.get(f"{self._round}/request"))
        self._request = StopRequest(ExitCode(found["code"]), found["why"], found["received"])
        if self._rank == 0 and self._request.code is not ExitCode.CONFIG:
            again = "; Ctrl-C once more ends it now" if self._request.code is ExitCode.STOPPED else ""
            say(f"{self._request.why}: all ranks save after this step and leave{again}")
        self._decided.clear()
        self._held = True
        store.set(f"{self._round}/step/{self._rank}", str(self._step))
        steps = [f"{self._round}/step/{rank}" for rank in range(self._size)]
        while not self._over.is_set() and not store.check([f"{self._round}/after"]):
            if self._rank == 0 and store.check(steps):
                _decide(store, self._round, 1 + max(int(store.get(step)) for step in steps))
            else:
                self._over.wait(_POLL_S / 10)
        if self._over.is_set():
            return True
        self._after = int(store.get(f"{self._round}/after"))
        self._held = self._after != _NOTHING
        self._decided.set()
        return self._held


def _decide(store: Store, round_: int, after: int) -> int:
    """Set the round's result unless it is set (compare_set); returns the result."""
    return int(store.compare_set(f"{round_}/after", "", str(after)))

"""Heartbeats in the ranks' store: phase and stack of each rank, and whether its main thread waits for other ranks."""

import json
import os
import signal
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import torch
from torch.distributed import Store  # type: ignore[attr-defined]

from phalanx.system.module_path import PACKAGE
from phalanx.system.process_identity import process_start

# In the order in which a rank comes through them.
JOINING = ("device", "join")  # before the process group exists
PHASES = (
    *JOINING,
    *("build", "warm up", "open", "restore", "data", "forward", "backward", "log", "evaluate", "checkpoint"),
)

# Files with a frame of theirs innermost while a main thread waits for other ranks.
_WAITS = (os.sep + os.path.join("torch", "distributed", ""), os.path.join("distributed", "shared_memory.py"))
_STORE = (
    os.path.join("distributed", "rendezvous.py"),
    os.path.join("distributed", "network.py"),
)  # wait for the store in C++
_ENGINE = os.path.join("autograd", "graph.py")  # where a backward computes and waits in C++
_LIBRARIES = (f"{Path(torch.__file__).parent}{os.sep}", f"{Path(os.__file__).parent}{os.sep}", "<")
_NOT_THE_USERS = (f"{PACKAGE}{os.sep}", *_LIBRARIES)
_FEW = 64  # up to so many ranks all read all heartbeats at every look
_DEBUGGERS = ("bdb.py", "pdb.py", "code.py")


@dataclass(frozen=True)
class Heartbeat:
    """State of a rank. `waits`: its main thread waits for other ranks; `awaits`: for which ones, if known."""

    look: int
    phase: str
    step: int
    since_s: float
    waits: bool
    awaits: Sequence[int]
    stack: Sequence[str]
    host: str
    machine: str
    pid: int
    began: int

    @property
    def progress(self) -> tuple[int, int]:
        return self.step, PHASES.index(self.phase) if self.phase in PHASES else len(PHASES)


def kill_process(heartbeat: Heartbeat) -> None:
    """SIGKILL the process on this machine by pidfd, not a later one with the same pid."""
    with suppress(ProcessLookupError):
        handle = os.pidfd_open(heartbeat.pid)
        if process_start(heartbeat.pid) == heartbeat.began:
            signal.pidfd_send_signal(handle, signal.SIGKILL)
        os.close(handle)


def frames_of(thread: int | None) -> list[FrameType]:
    """The frames of a thread, the innermost first."""
    frame = sys._current_frames().get(thread or 0)
    frames = []
    while frame is not None:
        frames.append(frame)
        frame = frame.f_back
    return frames


def waits_for_ranks(frames: Sequence[FrameType], phase: str) -> bool:
    """Whether a main thread waits for other ranks, or may: a backward computes and waits in one C++ call, and a GPU's
    stream is synchronised in "log"."""
    innermost = frames[0].f_code.co_filename
    if innermost.endswith((_ENGINE, *_STORE)) or (phase == "log" and torch.cuda.is_available()):
        return True
    return any(part in frame.f_code.co_filename for frame in frames[:4] for part in _WAITS)


def _in_the_users_code(heartbeat: Heartbeat) -> bool:
    """Whether a rank waits in a collective that the user's code called, which other ranks may not call."""
    began = next((line for line in reversed(heartbeat.stack) if not line.startswith(_LIBRARIES)), "")
    return not began.startswith(_NOT_THE_USERS)


def is_debugged(frames: Sequence[FrameType]) -> bool:
    return any(os.path.basename(frame.f_code.co_filename) in _DEBUGGERS for frame in frames)


def first_late(heartbeats: Mapping[int, Heartbeat], size: int, timeout_s: float) -> int | None:
    """The rank that the others wait for, where all `size` ranks wait for longer than `timeout_s`; else None."""
    stuck = all(heartbeat.waits and heartbeat.since_s >= timeout_s for heartbeat in heartbeats.values())
    if len(heartbeats) < size or not stuck:
        return None
    awaited = {late for heartbeat in heartbeats.values() for late in heartbeat.awaits}
    late = [rank for rank in awaited if rank in heartbeats and not heartbeats[rank].awaits] or list(heartbeats)
    return min(late, key=lambda rank: (heartbeats[rank].progress, not _in_the_users_code(heartbeats[rank]), rank))


def users_line(heartbeat: Heartbeat) -> str | None:
    """The innermost line of the user's own code that the rank is in."""
    return next((line for line in reversed(heartbeat.stack) if not line.startswith(_NOT_THE_USERS)), None)


class HeartbeatExchange:
    """Publish this rank's heartbeat in the ranks' store and read the others', in a thread of its own.

    All ranks make one. `asked_s` is when the store was asked, while it has not answered; `answered_s` is when it last did.
    Both are seconds of the watchdog's own clock, as `publish` gave it.
    """

    def __init__(self, rank: int, size: int, own: Heartbeat, store: Store | None, late_s: float) -> None:
        """`late_s`: how long a rank may stand still before it asks for the others where there are many."""
        self.asked_s: float | None = None
        self.answered_s = 0.0
        self._rank = rank
        self._size = size
        self._own = own
        self._late_s = late_s
        self._now_s = 0.0
        self._found: dict[int, tuple[Heartbeat, float]] = {}  # of the others, each with when this rank first saw it
        self._wake = threading.Event()
        self._over = threading.Event()
        self._thread: threading.Thread | None = None
        if store is not None:
            store.set(f"at/{rank}", _as_json(own))
            self._thread = threading.Thread(target=self._run, args=(store.clone(),), name="heartbeats", daemon=True)
            self._thread.start()

    def publish(self, own: Heartbeat, now_s: float) -> None:
        self._own, self._now_s = own, now_s
        self.ask()

    def ask(self) -> None:
        """Publish and read as soon as the store answers."""
        self._wake.set()

    def seen(self) -> list[tuple[int, Heartbeat, float]]:
        """The others' newest heartbeats, each with when it was first seen."""
        return [(rank, *found) for rank, found in list(self._found.items())]  # a copy: the thread adds some meanwhile

    @property
    def heartbeats(self) -> dict[int, Heartbeat]:
        return {rank: heartbeat for rank, heartbeat, _ in self.seen()}

    def close(self) -> None:
        self._over.set()
        self._wake.set()

    def join(self, timeout_s: float) -> None:
        if self._thread is not None:
            self._thread.join(timeout_s)

    def _run(self, store: Store) -> None:
        others = [rank for rank in range(self._size) if rank != self._rank]
        keys = [f"at/{rank}" for rank in others]
        with suppress(RuntimeError):  # the store is gone; FailureChannel reports that
            while not self._over.is_set():
                self._wake.wait()
                self._wake.clear()
                own = self._own
                store.set(f"at/{self._rank}", _as_json(own))
                if own.since_s < self._late_s and own.phase not in JOINING and self._size > _FEW:
                    self._found.clear()
                    continue
                self.asked_s = self._now_s
                found = dict(zip(others, store.multi_get(keys), strict=True)) if store.check(keys) else {}
                self.asked_s = None
                for rank, words in found.items():
                    self._note(rank, Heartbeat(**json.loads(words)))
                self.answered_s = self._now_s

    def _note(self, rank: int, heartbeat: Heartbeat) -> None:
        known = self._found.get(rank)
        self._found[rank] = (heartbeat, known[1] if known and known[0].look == heartbeat.look else self._now_s)


def _as_json(heartbeat: Heartbeat) -> str:
    return json.dumps(vars(heartbeat))

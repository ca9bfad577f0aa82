"""The watchdog of a rank: threads beside the main thread that notice a hang and name the rank that is late.

Every rank judges its own work, since it alone knows whether its main thread works or waits for another rank. It also
sends a heartbeat to the ranks' store, as long as it lives. So a rank that only waits can wait for as long as the others
work: no timeout bounds what one rank does alone, such as to save, to hash or to verify. The watchdog names the ranks
whose heartbeats stopped (by SIGSTOP, a network cut, or code that never releases the interpreter), and, where all ranks
wait, the rank that the others wait for.

Time is counted in looks and not by the clock: a process that was stopped and continued has missed nothing.
"""

import os
import socket
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from torch.distributed import Store  # type: ignore[attr-defined]

from phalanx.exit import cause_file
from phalanx.exit.codes import ExitCode, Hang, Hung, JoinFailed
from phalanx.exit.messages import end, say
from phalanx.run_folder import names
from phalanx.system.process_identity import machine_id, process_start

from .heartbeat import (
    JOINING,
    Heartbeat,
    HeartbeatExchange,
    first_late,
    frames_of,
    is_debugged,
    kill_process,
    users_line,
    waits_for_ranks,
)

# In all other phases a rank may work alone, without a bound on its time while it reads or writes.
_STEPS = {"data", "forward", "backward", "log", "evaluate"}
_ALONE = 6  # times the timeout: limit of one rank's work without any I/O, outside of steps
_ALONE_S = 30.0  # the least such limit
_LOOKS = 5  # polls per timeout
_LONGEST_LOOK_S = 5.0
_ASKS = 0.4  # of the timeout: after it a rank without progress reads heartbeats, and a rank without one is silent
_SILENT_S = 4.0  # the least silence that counts: a thread on a busy machine may be late
_JOINS_S = 10.0  # silence that counts during the rendezvous
_GONE_S = 1.0  # poll interval during the rendezvous, and timeout of joining the threads


class Watchdog:
    """The watchdog of one rank. All ranks make one once the store is there; a world of one has no store.

    `ended` is called in the watchdog's thread with the error that ends the run.
    """

    def __init__(self, rank: int, size: int, timeout_s: float, store: Store | None) -> None:
        self.ended: Callable[[BaseException], None] = self._leave
        self.awaited: Callable[[], Sequence[int]] = list  # the ranks that an all-reduce in shared memory waits for
        self._rank = rank
        self._size = size
        self._host, self._machine, self._pid = socket.gethostname(), machine_id(), os.getpid()
        self._began = process_start(self._pid) or 0
        self._timeout_s = timeout_s
        self._silence_s = max(_SILENT_S, _ASKS * timeout_s)
        self._look_s = min(timeout_s / _LOOKS, _LONGEST_LOOK_S)
        self._mark: tuple[str, int] = ("device", 0)
        self._main = threading.current_thread().ident
        self._io = Path(f"/proc/self/task/{threading.get_native_id()}/io")
        self._looks = 0
        self._over = threading.Event()
        self._lived_s = 0.0
        own = self._own_heartbeat(self._mark, 0.0)
        self._exchange = HeartbeatExchange(rank, size, own, store, _ASKS * timeout_s)
        self._thread = threading.Thread(target=self._watch, name="watch", daemon=True)
        self._thread.start()

    def at(self, phase: str, step: int) -> None:
        """The main thread begins `phase` after `step` steps. Once all ranks have joined, each asks for the others at once:
        of one that stands still before the first look, and holds the store, nothing could be learned later."""
        joined = self._mark[0] in JOINING and phase not in JOINING
        self._mark = (phase, step)
        if joined:
            self._exchange.ask()

    def touch(self) -> None:
        """The main thread has made progress within its phase, such as another batch."""
        phase, step = self._mark
        self._mark = (phase, step)

    @property
    def where(self) -> str:
        return f"{self._mark[0]} of step {self._mark[1] + 1}"

    def close(self) -> None:
        self._over.set()
        self._exchange.close()

    def join(self) -> None:
        """After `close`: join the threads. A thread inside torch at interpreter exit would abort the process."""
        self._thread.join(_GONE_S)
        self._exchange.join(_GONE_S)

    def end(self, ranks: Sequence[int]) -> None:
        """SIGKILL those of `ranks` that are on this machine: a hung process handles no other signal, and a launcher waits
        half a minute before it kills."""
        for rank, heartbeat, _ in self._exchange.seen():
            if rank in ranks and heartbeat.machine == self._machine:
                kill_process(heartbeat)

    def _watch(self) -> None:
        seen, since_s, moved, last = self._mark, 0.0, "", time.monotonic()
        while not self._over.wait(min(self._look_s, _GONE_S) if seen[0] in JOINING else self._look_s):
            now = time.monotonic()
            passed_s, last = min(now - last, 2 * self._look_s), now
            self._lived_s += passed_s
            alone = seen[0] not in _STEPS
            did = _read(self._io) if alone else ""
            if self._mark is not seen or did != moved:
                seen, since_s, moved = self._mark, 0.0, did
            else:
                since_s += passed_s
            self._looks += 1
            own = self._own_heartbeat(seen, since_s)
            self._exchange.publish(own, self._lived_s)
            found = self._judge(own, self._limit_s(alone))
            if found is not None and self._mark is seen and not self._over.is_set():
                self.ended(found)

    def _limit_s(self, alone: bool) -> float:
        return max(_ALONE_S, _ALONE * self._timeout_s) if alone else self._timeout_s

    def _own_heartbeat(self, mark: tuple[str, int], since_s: float) -> Heartbeat:
        phase, step = mark
        late = since_s >= _ASKS * self._timeout_s or phase in JOINING
        frames = frames_of(self._main) if late else []
        waits = bool(frames) and waits_for_ranks(frames, phase)
        stack = [f"{frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_name}" for frame in reversed(frames)]
        awaits = list(self.awaited()) if waits else []
        me = (self._host, self._machine, self._pid, self._began)
        return Heartbeat(self._looks, phase, step, since_s, waits, awaits, stack, *me)

    def _judge(self, own: Heartbeat, limit_s: float) -> BaseException | None:
        """The error that ends the run, if this rank can tell of a hang; else None."""
        if own.waits and (gone := self._gone()) is not None:
            return JoinFailed(
                f"rank {gone} on {self._exchange.heartbeats[gone].host} is gone: it ended before the ranks had joined"
            )
        if own.since_s < (self._timeout_s if own.waits else limit_s):
            return None
        asked_s = self._exchange.asked_s
        if asked_s is not None and self._lived_s - asked_s >= self._silence_s:
            unknown = replace(own, phase="some part", stack=())
            keeper = self._exchange.heartbeats.get(0, unknown)
            return self._hung(0, keeper, "it holds the ranks' store and does not answer")
        if (silent := self._silent()) is not None:
            return silent
        if own.waits:
            return self._deadlocked(own)
        if self._is_after_another(own) or is_debugged(frames_of(self._main)):
            return None
        return self._hung(self._rank, own, "it works on and comes to no end")

    def _is_after_another(self, own: Heartbeat) -> bool:
        """Whether a rank that is behind works, too: this one may wait for it outside of known collectives."""
        heartbeats = [heartbeat for _, heartbeat, _ in self._exchange.seen()]
        return any(not at.waits and at.since_s >= self._timeout_s and at.progress < own.progress for at in heartbeats)

    def _gone(self) -> int | None:
        """A rank that died during the rendezvous, when there is no process group yet to notice. On this machine by its pid,
        elsewhere by silence; a rank in "device" may be silent because CUDA holds its interpreter. One of this machine may
        have left because of another's silence, just before it counts here: the one that was heard last the longest ago."""
        if self._mark[0] not in JOINING:
            return None
        gone: dict[int, float] = {}
        silent: dict[int, float] = {}
        for rank, heartbeat, seen_s in self._exchange.seen():
            if heartbeat.machine != self._machine:
                silent |= {rank: seen_s} if heartbeat.phase == "join" else {}
            elif process_start(heartbeat.pid) != heartbeat.began:
                gone[rank] = seen_s
        since = min(gone.values()) - _JOINS_S / 2 if gone else self._exchange.answered_s - _JOINS_S
        gone |= {rank: seen_s for rank, seen_s in silent.items() if seen_s <= since}
        return min(gone, key=lambda rank: gone[rank]) if gone else None

    def _silent(self) -> Hung | None:
        """A rank without a new heartbeat up to the store's last answer: a store that does not answer proves nothing."""
        for rank, heartbeat, seen_s in self._exchange.seen():
            if self._exchange.answered_s - seen_s >= self._silence_s:
                why = "it says nothing any more: it was stopped, its machine was cut off, or code holds its interpreter"
                return self._hung(rank, heartbeat, why)
        return None

    def _deadlocked(self, own: Heartbeat) -> Hung | None:
        """Where every rank waits, the one that the others wait for is late."""
        heartbeats = {rank: heartbeat for rank, heartbeat, _ in self._exchange.seen()} | {self._rank: own}
        late = first_late(heartbeats, self._size, self._timeout_s)
        if late is None:
            return None
        return self._hung(late, heartbeats[late], "it waits for ranks that do not come there, and they for it")

    def _hung(self, rank: int, heartbeat: Heartbeat, why: str) -> Hung:
        waiting = [other for other in range(self._size) if other != rank]
        known = rank == self._rank or rank in self._exchange.heartbeats
        host = heartbeat.host if known else "an unknown host"
        since_s = heartbeat.since_s if rank == self._rank else max(heartbeat.since_s, self._timeout_s)
        hang = Hang(rank, host, heartbeat.phase, heartbeat.step, round(since_s, 1), waiting, list(heartbeat.stack))
        own = users_line(heartbeat)
        return Hung(hang, why, self._timeout_s, "" if own is None else f" at {own}", names.rank_log_path(rank))

    def _leave(self, error: BaseException) -> None:
        """The default of `ended`, before there is a failure channel: the first rank that is alive prints the error."""
        gone = self._gone()
        code = ExitCode.HUNG if isinstance(error, Hung) else ExitCode.BUG
        if self._rank == (1 if gone == 0 else 0):
            say(f"error: {error}")
            cause_file.write(code, self._rank, str(error))
        end(code)


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""

"""Slots of this machine, the ranks of a trial, and the client of the fork server that they are forked from."""

import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from phalanx.config.schema import SweepConfig
from phalanx.exit.codes import ConfigError, ExitCode
from phalanx.system.allocator import huge_pages
from phalanx.system.cpu_count import typed
from phalanx.system.gpu_visibility import GIVEN
from phalanx.system.module_path import PACKAGE

from ..host import processes
from ..host.held_signals import HeldSignals
from ..host.machine import Gpu, Machine

if TYPE_CHECKING:
    from phalanx.compose.compose import Composed

_LEAVE_S = 10.0  # what ranks get to leave by themselves once one has failed


@dataclass(frozen=True)
class Slot:
    """Room for the ranks of one trial: GPUs, one a rank, or none; `threads` of the CPU for each rank."""

    number: int
    gpus: tuple[str, ...]
    threads: int


def slots(config: SweepConfig, machine: Machine, gpus: Sequence[Gpu], environ: Mapping[str, str]) -> list[Slot]:
    """The slots of this machine; `gpus` are those to use, and an OMP_NUM_THREADS in `environ` holds.

    Raises ConfigError where not one trial fits.
    """
    have = len(gpus) if gpus else machine.cpus
    if config.ranks > have:
        what = "free GPUs" if gpus else "CPU cores"
        raise ConfigError(
            f"sweep.ranks={config.ranks} is more than this machine has {what} for: {have}. Type sweep.ranks={have}"
        )
    if config.ranks > 1 and any(gpu.slice for gpu in gpus):
        raise ConfigError("Ranks on slices of a GPU (MIG) do not find each other. Type sweep.ranks=1")
    most = have // config.ranks * (config.per_gpu if gpus else 1)
    count = min(most, config.slots or most) if gpus else config.slots or most
    threads = typed(environ) or max(1, machine.cpus // (count * config.ranks))
    return [Slot(number, _share(number, config, gpus), threads) for number in range(count)]


def _share(number: int, config: SweepConfig, gpus: Sequence[Gpu]) -> tuple[str, ...]:
    first = number // config.per_gpu * config.ranks
    return tuple(gpu.uuid for gpu in gpus[first : first + config.ranks])


@dataclass
class RankGroup:
    """The ranks of one start. `codes` fills up as they end, with exit codes or negative numbers of signals."""

    pids: tuple[int, ...]
    port: socket.socket
    codes: dict[int, int] = field(default_factory=dict)
    _failed_s: float | None = None  # when a rank was first seen to have failed

    @property
    def ended(self) -> bool:
        return len(self.codes) == len(self.pids)

    def send(self, heard: signal.Signals) -> None:
        for pid in self.pids:
            if pid not in self.codes:
                processes.send_signal(pid, heard)

    def end_left_behind(self, now_s: float) -> None:
        """Ranks that had joined leave by themselves when one fails; before that nobody tells them, as torchrun would."""
        if not set(self.codes.values()) - {ExitCode.FINISHED, ExitCode.PREEMPTED, ExitCode.STOPPED}:
            return
        self._failed_s = self._failed_s or now_s
        if now_s - self._failed_s > _LEAVE_S:
            self.send(signal.SIGKILL)


class ForkServerDied(RuntimeError):  # noqa: N818
    """The fork server has died, and told its ranks to save and leave."""


class ForkServer:
    """Client of the fork server, which ends, and with it all ranks, when this process does."""

    def __init__(self, signals: HeldSignals) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(PACKAGE), "-m", "launch.sweep.fork_server"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            env={**os.environ, **huge_pages(os.environ)},  # its ranks inherit the allocator that this sets up
            start_new_session=True,  # Ctrl-C reaches this process alone, which tells the ranks
            preexec_fn=signals.unblock,
        )
        assert self._process.stdout is not None
        os.set_blocking(self._process.stdout.fileno(), False)
        self._partial = b""
        self._forked: list[int] = []
        self._ready: set[int] = set()
        self._ended: dict[int, int] = {}
        self._prepared: dict[Slot, list[int]] = {}

    def prepare(self, slot: Slot, ranks: int) -> None:
        """Fork the ranks of the next start in a slot ahead, while others still train there. Raises ForkServerDied."""
        if slot not in self._prepared:
            self._prepared[slot] = self._fork(slot, ranks)

    def start(
        self,
        slot: Slot,
        ranks: int,
        argv: Sequence[str],
        composed: "Composed",
        output: Path,
        environ: Mapping[str, str],
    ) -> RankGroup:
        """Train what `argv` composes to in a slot, with `environ` added to this process's environment.

        The ranks' output is added to the file `output`. Raises ForkServerDied.
        """
        pids = self._take_prepared(slot) or self._fork(slot, ranks)
        port = _reserve_port()
        shared = {
            "WORLD_SIZE": str(ranks),
            "LOCAL_WORLD_SIZE": str(ranks),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port.getsockname()[1]),
            "OMP_NUM_THREADS": str(slot.threads),
            **environ,
        }
        told = {"argv": list(argv), "plain": composed.plain, "foreign": composed.foreign, "cwd": os.getcwd()}
        for rank, pid in enumerate(pids):
            own = {**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)}
            self._send({**told, "pid": pid, "environ": own, "output": str(output)})
        return RankGroup(tuple(pids), port)

    def update(self, group: RankGroup) -> None:
        """Read the exit codes of ranks of a group that have ended by now. Raises ForkServerDied."""
        self._read_answers()
        group.codes |= {pid: self._ended.pop(pid) for pid in group.pids if pid in self._ended}
        group.end_left_behind(time.monotonic())
        if group.ended:
            group.port.close()

    def close(self) -> None:
        """End the fork server; its ranks save and leave."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.terminate()  # it may be importing still
        self._process.wait()
        self._process.stdin.close()
        self._process.stdout.close()

    def _send(self, words: Mapping[str, Any]) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(words).encode() + b"\n")
        except BrokenPipeError:
            raise ForkServerDied from None

    def _take_prepared(self, slot: Slot) -> list[int]:
        """The ranks that were prepared, or none where they do not live or did not get their GPUs."""
        self._read_answers()
        pids = self._prepared.pop(slot, [])
        if all(pid in self._ready and pid not in self._ended for pid in pids):
            return pids
        for pid in pids:
            if pid not in self._ended:
                processes.send_signal(pid, signal.SIGKILL)
        return []

    def _fork(self, slot: Slot, ranks: int) -> list[int]:
        environ = {"CUDA_VISIBLE_DEVICES": ",".join(slot.gpus), GIVEN: str(len(slot.gpus))} if slot.gpus else {}
        pids = []
        for rank in range(ranks):
            self._send({"environ": environ, "gpu": rank if slot.gpus else None})
            pids.append(self._next_pid())
        return pids

    def _next_pid(self) -> int:
        """The process id of the next rank."""
        assert self._process.stdout is not None
        while not self._forked:
            select.select([self._process.stdout], [], [])
            self._read_answers()
        return self._forked.pop()

    def _read_answers(self) -> None:
        """Read the answers of the fork server since the last time."""
        assert self._process.stdout is not None
        while (found := self._process.stdout.read(65536)) is not None:
            if not found:
                raise ForkServerDied
            *lines, self._partial = (self._partial + found).split(b"\n")
            for line in lines:
                words = json.loads(line)
                if "code" in words:
                    self._ended[words["pid"]] = words["code"]
                elif "ready" in words:
                    self._ready.add(words["ready"])
                else:
                    self._forked.append(words["pid"])


def _reserve_port() -> socket.socket:
    """A port that the system gives nobody else, and that a rank can listen on all the same: this one never listens."""
    held = socket.socket()
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    held.bind(("127.0.0.1", 0))
    return held

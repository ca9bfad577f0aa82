"""Start ranks, watch them, kill them: what tests of whole runs are written with."""

import itertools
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from phalanx.compose.compose import compose
from phalanx.exit.codes import ConfigError
from tests.warm_command import listening

ROOT = Path(__file__).resolve().parents[1]
QUIET = {"CUDA_VISIBLE_DEVICES": "", "WANDB_MODE": "disabled", "OMP_NUM_THREADS": "1", "HYDRA_FULL_ERROR": "0"}
DDP = "parallel.bucket_mb=25"  # on CPUs a knob of DDP's brings it, which reduces by itself on GPUs
SMALL = ("train.threads=1", "log.every=5", "wandb.mode=disabled")
_POLL_S = 0.004
_FIRST_PORT, _LAST_PORT = 10_000, 32_000  # below those that kernels choose from
_TURNS = itertools.count(os.getpid() * 1009)  # a suite takes fewer ports of one process than lie between two
_NAMED = re.compile(r"run\.name=(?!null|true|false|nan|inf)[a-z]\w*", re.ASCII)
COMPOSES = {"PYTHONPATH", "HYDRA_FULL_ERROR"}  # variables that decide what a command line composes to


class Nursery:
    """The process that ranks and commands are forked from; see tests/warm_process.py."""

    def __init__(self) -> None:
        with listening() as listener:
            self.address: bytes = listener.getsockname()
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.warm_process", str(listener.fileno()), "--ranks"],
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                pass_fds=[listener.fileno()],
            )
        self._codes: dict[int, int] = {}

    def fork(self, asked: Mapping[str, Any]) -> int:
        self._say({"environ": {}, "gpu": None})
        while words := self._hear():
            if "code" in words:
                self._codes[words["pid"]] = words["code"]
            elif "pid" in words:
                break
        self._say({**asked, "pid": words["pid"]})
        return int(words["pid"])

    def wait(self, pid: int) -> int:
        """Exit code of a rank, negative when a signal ended it. Blocks until it has ended."""
        while pid not in self._codes:
            words = self._hear()
            if "code" in words:
                self._codes[words["pid"]] = words["code"]
        return self._codes.pop(pid)

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.kill()  # an interpreter with torch in it takes its time to end, and there is nothing to tidy up
        self._process.wait()
        self._process.stdin.close()
        self._process.stdout.close()

    def _say(self, words: Mapping[str, Any]) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(words) + "\n")
        self._process.stdin.flush()

    def _hear(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the nursery is gone"
        words: dict[str, Any] = json.loads(line)
        return words


@dataclass
class Ended:
    """How a start ended: every rank's exit code and what each printed."""

    codes: list[int]
    outputs: list[str]

    @property
    def output(self) -> str:
        return "".join(self.outputs)


@dataclass
class World:
    """The ranks of one start."""

    nursery: Nursery
    pids: list[int]
    files: list[Path]
    ended: list[int] = field(default_factory=list)
    began_s: float = field(default_factory=time.monotonic)

    def soon_s(self) -> float:
        """Seconds within which ranks that wait for nobody leave, from now on: 2, and more on a loaded machine.

        How loaded it is shows in the time that it took to come here, which is about a second where nothing else runs.
        """
        return max(2.0, 2.0 * (time.monotonic() - self.began_s))

    def kill(self, *ranks: int, with_signal: int = signal.SIGKILL) -> None:
        for rank in ranks or range(len(self.pids)):
            os.kill(self.pids[rank], with_signal)

    def wait(self) -> Ended:
        codes = [self.nursery.wait(pid) for pid in self.pids]
        return Ended(codes, [file.read_text(errors="replace") for file in self.files])


@dataclass(frozen=True)
class Starter:
    """Starts worlds that write below `folder`."""

    nursery: Nursery
    folder: Path

    def start(
        self,
        ranks: int,
        *overrides: str,
        environ: Mapping[str, str] | None = None,
        attempt: int = 0,
        port: int | None = None,
        absent: int | None = None,
    ) -> World:
        """Fork `ranks` ranks of `train/main.py overrides`, less one that is `absent`, as it comes to `port` by itself.

        Without that they find each other through a port of their own.
        """
        argv = [f"run.root={quoted(str(self.folder / 'runs'))}", *SMALL, *overrides]
        known = {} if environ and environ.keys() & COMPOSES else composed(argv, str(self.folder / "runs"))
        port = port or free_port()
        pids, files = [], []
        number = len(list(self.folder.glob("output-*")))
        for rank in (rank for rank in range(ranks) if rank != absent):
            files.append(self.folder / f"output-{number}-{rank}")
            files[-1].touch()
            pids.append(
                self.nursery.fork(
                    {
                        "argv": argv,
                        **known,
                        "environ": {**QUIET, **rank_variables(rank, ranks, port, attempt), **(environ or {})},
                        "cwd": str(self.folder),
                        "output": str(files[-1]),
                    }
                )
            )
        return World(self.nursery, pids, files)

    def run(self, ranks: int, *overrides: str, environ: Mapping[str, str] | None = None) -> Ended:
        return self.start(ranks, *overrides, environ=environ).wait()

    def train(self, ranks: int, *overrides: str, name: str, environ: Mapping[str, str] | None = None) -> "Results":
        """A run that must finish; returns what it left in its folder."""
        ended = self.run(ranks, f"run.name={name}", *overrides, environ=environ)
        assert ended.codes == [0] * ranks, ended.output
        return self.results(name)

    def results(self, name: str) -> "Results":
        return Results(self.folder / "runs" / name)


def _no_json(constant: str) -> float:
    raise AssertionError(f"{constant}, which Python alone reads, in a file of JSON")


@dataclass(frozen=True)
class Results:
    """What a run left behind."""

    folder: Path

    @property
    def summary(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.folder / "summary.json").read_text(), parse_constant=_no_json)
        return found

    @property
    def sha256(self) -> str:
        return str(self.summary["weights_sha256"])

    def metrics(self, split: str | None = None) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in (self.folder / "metrics.jsonl").read_text().splitlines()]
        return [line for line in lines if split in (None, line["split"])]

    def reached(self, step: int) -> bool:
        """Whether there is a line at `step` or later."""
        try:
            *_, last = (self.folder / "metrics.jsonl").read_bytes().split(b"\n")[:-1]
        except (FileNotFoundError, ValueError):
            return False
        return bool(json.loads(last)["step"] >= step)

    def timeless(self) -> list[dict[str, Any]]:
        """The lines of metrics without what a clock decides."""
        clocked = {"time", "samples_per_s", "step_time_s", "data_wait_s", "page_faults"}
        return [{key: value for key, value in line.items() if key not in clocked} for line in self.metrics()]

    def events(self, name: str | None = None) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in (self.folder / "events.jsonl").read_text().splitlines()]
        return [line for line in lines if name in (None, line["event"])]

    def weights(self) -> dict[str, Any]:
        from safetensors.torch import load_file

        newest = max(self.folder.glob("checkpoints/step_*[0-9]/model.safetensors"))
        return load_file(newest)


def composed(argv: Sequence[str], root: str) -> Mapping[str, Any]:
    """What the fork server takes for ranks to compose nothing themselves, which takes most of a small run's time.

    The first of `argv` says `root`. Runs that differ in nothing but that and a plain name are composed once: nothing else
    depends on the two.
    """
    words = argv[1:]
    placed = [word for word in words if "run.name" in word or "run.root" in word]
    if len(placed) != 1 or _NAMED.fullmatch(placed[0]) is None:
        return _composed(tuple(argv))
    found = _composed((*(word for word in words if word != placed[0]), "run.name=r"))
    if not found:
        return {}
    run = {**found["plain"]["run"], "root": root, "name": placed[0].partition("=")[2]}
    return {**found, "plain": {**found["plain"], "run": run}}


@lru_cache(maxsize=256)
def _composed(argv: tuple[str, ...]) -> Mapping[str, Any]:
    """Empty where ranks compose themselves: a bad command line, and what reads files or the environment."""
    if any(word.startswith("-") or "searchpath" in word or "${" in word for word in argv):
        return {}
    try:
        found = compose(argv)
    except ConfigError:
        return {}
    return {"plain": found.plain, "foreign": found.foreign}


def rank_variables(rank: int, ranks: int, port: int, attempt: int = 0) -> dict[str, str]:
    """What torchrun tells a rank on one machine."""
    return {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(ranks),
        "LOCAL_WORLD_SIZE": str(ranks),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "TORCHELASTIC_RESTART_COUNT": str(attempt),
    }


def holder(run: Path) -> int:
    """The process that holds the run in the folder `run`."""
    return int(json.loads(max((run / "lease").glob("*.json")).read_text())["pid"])


def free_port() -> int:
    """A port that nobody has now, and that nobody else is given before it is used.

    One of the kernel's own choice goes to the next who asks, once it is closed: two runs of tests that run side by side
    would have one port, and a rank of the one would join the other. Processes begin at places of their own here.
    """
    while True:
        port = _FIRST_PORT + next(_TURNS) % (_LAST_PORT - _FIRST_PORT)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def quoted(text: str) -> str:
    """A value as Hydra's grammar takes it literally."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def until(true: Callable[[], bool], timeout_s: float = 60.0) -> None:
    """Return as soon as a condition on files holds, which nothing announces."""
    end = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < end, "it never came true"
        time.sleep(_POLL_S)


def torchrun(
    ranks: int, arguments: Sequence[str], cwd: Path, environ: Mapping[str, str] | None = None, *options: str
) -> "subprocess.Popen[str]":
    """The real launcher with `options`, in a session of its own."""
    command = [sys.executable, "-m", "torch.distributed.run", f"--nproc_per_node={ranks}", *options]
    return subprocess.Popen(
        [*command, str(ROOT / "train" / "main.py"), *arguments],
        cwd=cwd,
        env={**os.environ, **QUIET, **(environ or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )

"""GPUs are claimed by locks that end with the processes that hold them, so that two runs never share one."""

import fcntl
import os
import shlex
import stat
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from launch.machine import Gpu
from train.outcome import ConfigError
from train.redact import redact_argv
from train.refusal import say


@dataclass(frozen=True)
class Claim:
    """GPUs that are this run's alone as long as any process keeps one of the `descriptors` open."""

    gpus: tuple[Gpu, ...]
    descriptors: tuple[int, ...]


@contextmanager
def claim(gpus: Sequence[Gpu], ranks: int | None) -> Iterator[Claim]:
    """Claim a GPU for each of `ranks`; where that is None all that are free, or one slice where GPUs are in slices.

    A process that inherits the descriptors keeps the claim. Raises ConfigError when too few are free, and names the
    processes that hold the others.
    """
    wanted = ranks or (1 if any(gpu.slice for gpu in gpus) else len(gpus))
    if gpus and wanted > len(gpus):
        raise ConfigError(
            f"{wanted} ranks were asked for, one a GPU, and there are {len(gpus)} GPUs to use. "
            f"Type -n {len(gpus)}, or world.device=cpu to train on the CPU"
        )
    held: dict[Gpu, int] = {}
    holders: dict[Gpu, str] = {}
    try:
        if gpus:
            _take(gpus, wanted, held, holders)
        if gpus and len(held) < (ranks or 1):
            _refuse(wanted, held, holders)
        if len(held) < wanted and gpus:
            say(f"phalanx: training on {len(held)} of {wanted} GPUs, for {_named(holders)}")
        yield Claim(tuple(held), tuple(held.values()))
    finally:
        for descriptor in held.values():
            os.close(descriptor)


def _take(gpus: Sequence[Gpu], wanted: int, held: dict[Gpu, int], holders: dict[Gpu, str]) -> None:
    """Lock up to `wanted` of `gpus` into `held`, and find who holds the others that were tried."""
    folder = _private_folder()
    turn = _opened(folder / "turn")
    try:
        # One after the other: two runs that each took half of what they need would both be refused.
        fcntl.flock(turn, fcntl.LOCK_EX)
        for gpu in gpus:
            if len(held) == wanted:
                return
            descriptor = _opened(folder / gpu.uuid.replace("/", "_"))
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                holders[gpu] = os.pread(descriptor, 64, 0).decode(errors="replace").strip()
                os.close(descriptor)
                continue
            os.truncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
            held[gpu] = descriptor
    finally:
        os.close(turn)


def _refuse(wanted: int, held: dict[Gpu, int], holders: dict[Gpu, str]) -> None:
    free = f"Type -n {len(held)}, wait for the others" if held else "Wait for one"
    raise ConfigError(
        f"{wanted} GPUs are needed and {len(held)} free: {_named(holders)}. {free}, "
        "or type world.device=cpu to train on the CPU"
    )


def _named(holders: dict[Gpu, str]) -> str:
    return "; ".join(f"process {pid or '?'} holds {gpu.uuid}{_command(pid)}" for gpu, pid in holders.items())


def _command(pid: str) -> str:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")[:-1]
    except OSError:
        return " (it is gone, its ranks are not yet)"
    return f" ({shlex.join(redact_argv(words))[:100]})"


def _private_folder() -> Path:
    """A folder that only this user can write to, in the system's folder for temporary files."""
    folder = Path(tempfile.gettempdir()) / f"phalanx-{os.geteuid()}"
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
        raise ConfigError(
            f"{folder}, where runs of one user claim their GPUs, is not a folder that only you may use. "
            "Remove it, or set TMPDIR to another folder"
        )
    return folder


def _opened(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)

"""What a rank's exception means: its exit code, and one message for the errors of several ranks in a common act."""

import errno
from dataclasses import dataclass

import torch
import torch.distributed as dist

from phalanx.exit.codes import ConfigError, ExitCode, GaveUp, Hung, NoRoom, PeerFailed, Preempted


@dataclass(frozen=True)
class RankError:
    """One rank's error in World.raise_on_all."""

    rank: int
    host: str
    config: str | None  # the message of a ConfigError
    code: int
    text: str  # the traceback of anything else
    message: str = ""  # what the exception says
    where: str = ""


def merge_messages(errors: list[RankError], size: int) -> str:
    """One message of many ranks' errors; who has them is named unless all have the same."""
    messages: dict[str, list[RankError]] = {}
    for rank_error in errors:
        messages.setdefault(rank_error.config or "", []).append(rank_error)
    if len(messages) == 1 and len(errors) in (1, size) and (size == 1 or len(errors) == size):
        return next(iter(messages))
    return "; ".join(f"{_who(found)}: {text}" for text, found in messages.items())


def _who(errors: list[RankError]) -> str:
    ranks = ", ".join(str(rank_error.rank) for rank_error in errors)
    hosts = ", ".join(sorted({rank_error.host for rank_error in errors}))
    return f"rank {ranks} on {hosts}"


def code_of(error: BaseException) -> ExitCode:
    """The exit code that an exception ends the run with."""
    if isinstance(error, PeerFailed):
        return ExitCode(error.failure.code)
    if isinstance(error, ConfigError):
        return ExitCode.CONFIG
    if isinstance(error, GaveUp):
        return ExitCode.GAVE_UP
    if isinstance(error, Preempted):
        return ExitCode.PREEMPTED
    if isinstance(error, Hung):
        return ExitCode.HUNG
    if isinstance(error, NoRoom):
        return ExitCode.NO_ROOM
    if isinstance(error, KeyboardInterrupt):
        return ExitCode.STOPPED
    if _lacks_memory(error):
        return ExitCode.OUT_OF_MEMORY
    return ExitCode.HUNG if is_collective(error) and is_timeout(error) else ExitCode.BUG


def _lacks_memory(error: BaseException) -> bool:
    """Whether the error says out of memory, of the host or of a GPU."""
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    words = ("can't allocate memory", "DefaultCPUAllocator", "out of memory", "CUBLAS_STATUS_ALLOC_FAILED")
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError)
        and not isinstance(error, PeerFailed)
        and any(word in str(error) for word in words)
    )


def is_collective(error: BaseException) -> bool:
    """Whether an exception is what a collective raises when a peer is gone or late."""
    words = ("gloo", "Connection closed by peer", "Connection reset", "Broken pipe", "NCCL")
    return isinstance(error, RuntimeError) and (
        isinstance(error, dist.DistError) or any(word in str(error) for word in words)
    )


def is_timeout(error: BaseException) -> bool:
    return "imed out" in str(error) or "timeout" in str(error)

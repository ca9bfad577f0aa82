"""Exit codes of a run, and the exceptions that carry them."""

from dataclasses import dataclass
from enum import IntEnum
from typing import Any

LAUNCHER = -1  # used as `rank` where the launcher is meant


class ExitCode(IntEnum):
    FINISHED = 0
    BUG = 1
    CONFIG = 2
    PREEMPTED = 3
    GAVE_UP = 4
    HUNG = 5
    OUT_OF_MEMORY = 6
    STOPPED = 7
    NO_ROOM = 8  # the run folder cannot be written: full, over a quota, read-only, an I/O error


class ConfigError(ValueError):
    """A user error: says what was set, what was found and what to type. Exit code 2, no traceback.

    `agreed`: every rank raises the same one, so only rank 0 prints it.
    """

    def __init__(self, message: str, *, agreed: bool = False) -> None:
        super().__init__(message)
        self.agreed = agreed


class GaveUp(RuntimeError):  # noqa: N818 - an outcome, not an error of the program
    """Training cannot go on in a way that makes sense, such as a loss that stays non-finite. Ends with code 4."""


class Preempted(RuntimeError):  # noqa: N818
    """Preempted before training began, so there is nothing to save. Exit code 3."""


class NoRoom(RuntimeError):  # noqa: N818
    """The run folder cannot be written. Ends with code 8, without a traceback."""


class ParityMissed(RuntimeError):  # noqa: N818
    """An exported model answers otherwise than the trained one. Ends with code 1, without a traceback."""


@dataclass(frozen=True)
class Hang:
    """The rank that is late, what it does after `step` steps, since when, which ranks wait for it, and where its main
    thread is, where that is known."""

    rank: int
    host: str
    phase: str
    step: int
    since_s: float
    waiting: list[int]
    stack: list[str]


class Hung(RuntimeError):  # noqa: N818
    """A rank hangs. Exit code 5."""

    def __init__(self, hang: Hang, why: str, timeout_s: float, at: str, log: str) -> None:
        """`at` is empty or " at FILE:LINE" of the user's code; `log` is the rank's log, relative to the run folder."""
        super().__init__(
            f"rank {hang.rank} on {hang.host} did not take part in time: it is in {hang.phase} of step {hang.step + 1} "
            f"since {hang.since_s:.0f} s (world.timeout_s={timeout_s:g}){at}, and {why}. See {log}"
        )
        self.hang = hang


@dataclass(frozen=True)
class Failure:
    """What ended the run: the rank that failed first, the exit code of all ranks, the traceback or message (`text`).

    `hang` has Hang's fields if a rank hangs, which may be another one than `rank`. `message` is the exception's own text,
    all lines; `where` is the step, sample and user line, see user_error.headline.
    """

    rank: int
    host: str
    code: int
    text: str
    hang: dict[str, Any] | None = None
    message: str = ""
    where: str = ""

    @property
    def said(self) -> str:
        """The message without stack frames."""
        return self.message or self.text

    def __str__(self) -> str:
        return (
            self.text
            if self.rank == LAUNCHER or self.hang
            else f"rank {self.rank} on {self.host} failed first:\n{self.text}"
        )


class JoinFailed(RuntimeError):  # noqa: N818
    """The rendezvous failed. There is no channel to the other ranks then, so each prints its own."""


class PeerFailed(RuntimeError):  # noqa: N818
    """Another rank failed inside World.raise_on_all."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(str(failure))
        self.failure = failure

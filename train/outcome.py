"""How a run can end: exit codes, and the exceptions that carry them."""

from dataclasses import dataclass
from enum import IntEnum

LAUNCHER = -1  # in the place of a rank


class ExitCode(IntEnum):
    FINISHED = 0
    BUG = 1
    CONFIG = 2
    PREEMPTED = 3
    GAVE_UP = 4
    HUNG = 5
    OUT_OF_MEMORY = 6
    STOPPED = 7


class ConfigError(ValueError):
    """The user's to mend: says what was set, what was found and what to type. Ends with code 2, without a traceback.

    `agreed` means that every rank raises the same one, so that rank 0 speaks for all.
    """

    def __init__(self, message: str, *, agreed: bool = False) -> None:
        super().__init__(message)
        self.agreed = agreed


class GaveUp(RuntimeError):  # noqa: N818 - an outcome, not an error of the program
    """Training cannot go on in a way that makes sense, such as a loss that stays non-finite. Ends with code 4."""


class Preempted(RuntimeError):  # noqa: N818
    """Told to leave before training began, so that there is nothing to save. Ends with code 3."""


@dataclass(frozen=True)
class Failure:
    """What ended the run: the rank that failed first, the exit code of all ranks, and its traceback or message."""

    rank: int
    host: str
    code: int
    text: str

    def __str__(self) -> str:
        return self.text if self.rank == LAUNCHER else f"rank {self.rank} on {self.host} failed first:\n{self.text}"


class JoinFailed(RuntimeError):  # noqa: N818
    """The ranks did not find each other. No rank can speak for the others then."""


class PeerFailed(RuntimeError):  # noqa: N818
    """Another rank failed in what all ranks do together."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(str(failure))
        self.failure = failure

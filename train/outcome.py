"""How a run can end: exit codes, and the exceptions that carry them."""

from enum import IntEnum


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


class PeerFailed(RuntimeError):  # noqa: N818
    """Another rank failed first; the message carries its traceback."""

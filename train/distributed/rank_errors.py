"""Merge the errors of several ranks in a common act into one message."""

from dataclasses import dataclass


@dataclass(frozen=True)
class RankError:
    """How one rank's part of a common act went wrong."""

    rank: int
    host: str
    config: str | None  # the message of a ConfigError
    code: int
    text: str  # the traceback of anything else
    message: str = ""  # what the exception says
    where: str = ""


def merged(errors: list[RankError], size: int) -> str:
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

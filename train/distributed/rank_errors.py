"""What goes wrong for some ranks in what all do together, as one message."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Trouble:
    """How one rank's part of a common act went wrong."""

    rank: int
    host: str
    config: str | None  # the message of a ConfigError
    code: int
    text: str  # the traceback of anything else
    message: str = ""  # what the exception says
    where: str = ""


def merged(troubles: list[Trouble], size: int) -> str:
    """One message of many ranks' troubles; who has them is named unless all have the same."""
    messages: dict[str, list[Trouble]] = {}
    for trouble in troubles:
        messages.setdefault(trouble.config or "", []).append(trouble)
    if len(messages) == 1 and len(troubles) in (1, size) and (size == 1 or len(troubles) == size):
        return next(iter(messages))
    return "; ".join(f"{_who(found)}: {text}" for text, found in messages.items())


def _who(troubles: list[Trouble]) -> str:
    ranks = ", ".join(str(trouble.rank) for trouble in troubles)
    hosts = ", ".join(sorted({trouble.host for trouble in troubles}))
    return f"rank {ranks} on {hosts}"

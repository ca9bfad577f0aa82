"""Why a start ended: what the deciding rank left in the cause file, else how the first rank to fail ended."""

import signal
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from phalanx.common.files import read_json
from phalanx.exit.cause_file import VARIABLE
from phalanx.exit.codes import ExitCode
from phalanx.exit.signals import CODES

RANKS = "PHALANX_RANKS_FILE"
_AGAIN = (
    ExitCode.BUG,
    ExitCode.HUNG,
)  # what another attempt may get past; the others would end the same, or were meant
_LEFT = (ExitCode.PREEMPTED, -signal.SIGTERM)  # how a rank ends that is told so before it has joined the others
_TOGETHER_S = 1.0  # torchrun's times are whole seconds: what is no further apart may have happened together


@dataclass(frozen=True)
class Cause:
    """`said` tells that a rank has told the user of it already."""

    code: ExitCode
    message: str
    said: bool

    @property
    def worth_a_restart(self) -> bool:
        return self.code in _AGAIN


def files(folder: Path) -> dict[str, str]:
    """The variables that name the files in which a start's ranks and its agent leave word, in an empty folder."""
    return {VARIABLE: str(folder / "cause.json"), RANKS: str(folder / "ranks.json")}


def read(folder: Path, agent: int) -> Cause:
    """The cause of a start whose agent ended with the code `agent`, negative for a signal, or 128 and its number.

    Never raises.
    """
    if agent == 0:
        return Cause(ExitCode.FINISHED, "finished", said=True)
    told, ranks = (Path(file) for file in files(folder).values())
    ended = read_json(ranks)
    return _told(told) or (first_failed(ended) if ended else _of_agent(agent))


def for_memory(found: Cause, killed: int) -> Cause:
    """The same cause, or that the kernel had `killed` processes for memory meanwhile, where nothing else is known of it."""
    if not killed or found.code != ExitCode.BUG:
        return found
    message = (
        f"{found.message}; the kernel killed {killed} process{'es' if killed > 1 else ''} here for lack of memory. Type a "
        "smaller train.micro_batch or fewer data.workers, or give the run more memory"
    )
    return Cause(ExitCode.OUT_OF_MEMORY, message, said=False)


def first_failed(ended: Sequence[tuple[int, int, float]]) -> Cause:
    """The cause as the ends of ranks tell it: of each that failed its rank, code and time in seconds."""
    first_s = min(time_s for _, _, time_s in ended)
    early = [(rank, code) for rank, code, time_s in ended if time_s <= first_s + _TOGETHER_S]
    # The agent ends the others with SIGTERM, and a rank that lost a peer fails of that within milliseconds.
    order = sorted(early, key=lambda ended: (ended[1] in _LEFT, ended[1] > 0))
    rank, code = order[0]
    if code in _LEFT:
        message = f"rank {rank} was told to leave before training began; the same command begins again"
        return Cause(ExitCode.PREEMPTED, message, said=False)
    known = code if code > 0 and code in set(ExitCode) else ExitCode.BUG
    return Cause(ExitCode(known), f"rank {rank} {_how(code)}", said=code == known)


def _of_agent(code: int) -> Cause:
    """Where no rank left word: it was told to leave while it had none, or something happened to it."""
    heard = -code if code < 0 else code - 128
    if heard in CODES:
        return Cause(CODES[heard], "told to leave before training began; the same command begins again", said=False)
    return Cause(ExitCode.BUG, f"the agent of the ranks {_how(code)}", said=False)


def _told(file: Path) -> Cause | None:
    found = read_json(file)
    if not isinstance(found, dict):
        return None
    code = found.get("code")
    if type(code) is not int or code not in set(ExitCode) - {ExitCode.FINISHED}:
        return None
    message = " ".join(str(found.get("message", "")).split())
    return Cause(ExitCode(code), f"rank {found.get('rank')} on {found.get('host')}: {message}", said=True)


def _how(code: int) -> str:
    if code >= 0:
        return f"ended with code {code}"
    with suppress(ValueError):
        return f"was killed by {signal.Signals(-code).name}"
    return f"was killed by signal {-code}"

"""Decides the exit code of a start: from the cause file of the deciding rank, else from how the first failed rank ended."""

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
)  # another attempt may succeed; the other codes would come again, or were asked for
_LEFT = (ExitCode.PREEMPTED, -signal.SIGTERM)  # how a rank ends that is told to leave before the rendezvous
_TOGETHER_S = 1.0  # torchrun's times are whole seconds: two ends no further apart are taken as simultaneous


@dataclass(frozen=True)
class ExitCause:
    """The exit code of a start and why. `said`: a rank has printed it already."""

    code: ExitCode
    message: str
    said: bool

    @property
    def worth_a_restart(self) -> bool:
        return self.code in _AGAIN


FINISHED = ExitCause(ExitCode.FINISHED, "finished", said=True)


def file_variables(folder: Path) -> dict[str, str]:
    """The environment variables that name the cause file and the ranks file of a start, in an empty folder."""
    return {VARIABLE: str(folder / "cause.json"), RANKS: str(folder / "ranks.json")}


def read(folder: Path, agent: int) -> ExitCause:
    """The cause of a start whose agent ended with the code `agent`, negative for a signal, or 128 and its number.

    Never raises.
    """
    if agent == 0:
        return FINISHED
    told, ranks = (Path(file) for file in file_variables(folder).values())
    ended = read_json(ranks)
    return _told(told) or (cause_of_ranks(ended) if ended else _of_agent(agent))


def cause_with_oom_kills(found: ExitCause, killed: int) -> ExitCause:
    """OUT_OF_MEMORY where the kernel's OOM killer had `killed` processes and no better cause is known; else `found`."""
    if not killed or found.code != ExitCode.BUG:
        return found
    message = (
        f"{found.message}; the kernel killed {killed} process{'es' if killed > 1 else ''} here for lack of memory. Type a "
        "smaller train.micro_batch or fewer data.workers, or give the run more memory"
    )
    return ExitCause(ExitCode.OUT_OF_MEMORY, message, said=False)


def cause_of_ranks(ended: Sequence[tuple[int, int, float]]) -> ExitCause:
    """The exit cause from the ends of failed ranks: of each its rank, code and time in seconds."""
    first_s = min(time_s for _, _, time_s in ended)
    early = [(rank, code) for rank, code, time_s in ended if time_s <= first_s + _TOGETHER_S]
    # The agent sends SIGTERM to the others, and a rank that lost a peer fails within milliseconds: both are consequences.
    order = sorted(early, key=lambda ended: (ended[1] in _LEFT, ended[1] > 0))
    rank, code = order[0]
    if code in _LEFT:
        message = f"rank {rank} was told to leave before training began; the same command begins again"
        return ExitCause(ExitCode.PREEMPTED, message, said=False)
    known = code if code > 0 and code in set(ExitCode) else ExitCode.BUG
    return ExitCause(ExitCode(known), f"rank {rank} {_how(code)}", said=code == known)


def _of_agent(code: int) -> ExitCause:
    """The cause where no rank reported: the agent was told to leave before it had ranks, or it died."""
    heard = -code if code < 0 else code - 128
    if heard in CODES:
        return ExitCause(CODES[heard], "told to leave before training began; the same command begins again", said=False)
    return ExitCause(ExitCode.BUG, f"the agent of the ranks {_how(code)}", said=False)


def _told(file: Path) -> ExitCause | None:
    found = read_json(file)
    if not isinstance(found, dict):
        return None
    code = found.get("code")
    if type(code) is not int or code not in set(ExitCode) - {ExitCode.FINISHED}:
        return None
    message = " ".join(str(found.get("message", "")).split())
    if code != ExitCode.CONFIG:  # of a command line, which all ranks have; what is wrong with a machine names that
        message = f"rank {found.get('rank')} on {found.get('host')}: {message}"
    return ExitCause(ExitCode(code), message, said=True)


def _how(code: int) -> str:
    if code >= 0:
        return f"ended with code {code}"
    with suppress(ValueError):
        return f"was killed by {signal.Signals(-code).name}"
    return f"was killed by signal {-code}"

"""Why a start ended: what the deciding rank left in the cause file, else how the first rank to fail ended."""

import signal
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from train.cause import VARIABLE
from train.files import read_json
from train.outcome import ExitCode

_AGAIN = (
    ExitCode.BUG,
    ExitCode.HUNG,
)  # what another attempt may get past; the others would end the same, or were meant
_TOGETHER_S = 1  # torchrun's times are whole seconds: what is no further apart may have happened together


@dataclass(frozen=True)
class Cause:
    """`said` tells that a rank has told the user of it already."""

    code: ExitCode
    message: str
    said: bool

    @property
    def worth_a_restart(self) -> bool:
        return self.code in _AGAIN


def ranks_file(environ: Mapping[str, str]) -> Path | None:
    """Where the agent leaves its ranks' exit codes; None where no launcher asks for them."""
    return Path(environ[VARIABLE]).with_name("ranks.json") if VARIABLE in environ else None


def read(cause_file: Path, agent: int) -> Cause:
    """The cause of a start whose agent ended with the code `agent`, negative for a signal. Never raises."""
    if agent == 0:
        return Cause(ExitCode.FINISHED, "finished", said=True)
    ranks = ranks_file({VARIABLE: str(cause_file)})
    assert ranks is not None
    return _told(cause_file) or _first_failed(ranks) or Cause(ExitCode.BUG, f"torchrun {_how(agent)}", said=False)


def _told(file: Path) -> Cause | None:
    found = read_json(file)
    if not isinstance(found, dict):
        return None
    code = found.get("code")
    if type(code) is not int or code not in set(ExitCode) - {ExitCode.FINISHED}:
        return None
    message = " ".join(str(found.get("message", "")).split())
    return Cause(ExitCode(code), f"rank {found.get('rank')} on {found.get('host')}: {message}", said=True)


def _first_failed(file: Path) -> Cause | None:
    found = read_json(file)
    if not found:
        return None
    first_s = min(time_s for _, _, time_s in found)
    early = [(rank, code) for rank, code, time_s in found if time_s <= first_s + _TOGETHER_S]
    # The agent ends the others with SIGTERM, and a rank that lost a peer fails of that within milliseconds.
    order = sorted(early, key=lambda ended: (ended[1] == -signal.SIGTERM, ended[1] > 0))
    rank, code = order[0]
    known = code if code > 0 and code in set(ExitCode) else ExitCode.BUG
    return Cause(ExitCode(known), f"rank {rank} {_how(code)}", said=code == known)


def _how(code: int) -> str:
    if code >= 0:
        return f"ended with code {code}"
    with suppress(ValueError):
        return f"was killed by {signal.Signals(-code).name}"
    return f"was killed by signal {-code}"

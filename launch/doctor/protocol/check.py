"""The interface of a check, and how it runs: every rank measures, all gather, all judge the same facts."""

import threading
from collections.abc import Sequence
from typing import Any, Protocol

from phalanx.exit import cause_file
from phalanx.exit.codes import ExitCode
from phalanx.exit.messages import end, say

from ..finding import Finding, Verdict
from .ranks import DoctorRanks, SilentRanks


class Check(Protocol):
    """`measure` returns JSON and may do collectives; `judge` sees what every rank measured, in order of rank."""

    @property
    def name(self) -> str: ...

    def measure(self, ranks: DoctorRanks) -> Any: ...

    def judge(self, ranks: DoctorRanks, facts: Sequence[Any]) -> list[Finding]: ...


def run_check(check: Check, ranks: DoctorRanks) -> list[Finding]:
    """All ranks call it, in the same order of checks. Raises SilentRanks when a rank neither measured nor failed.

    A rank whose own measurement takes longer than the limit ends with code 5. Those that wait for it in a collective
    give up after half of that, so that it is the only one.
    """
    alarm = threading.Timer(ranks.limit_s, _overdue, (check.name, ranks))
    alarm.daemon = True
    alarm.start()
    try:
        fact = {"fact": check.measure(ranks)}
    except SilentRanks:
        raise
    except Exception as error:  # whatever it was, the others are told
        fact = {"error": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}
    finally:
        alarm.cancel()
    told = ranks.gather(check.name, fact)
    if errors := {rank: words["error"] for rank, words in enumerate(told) if "error" in words}:
        return [_broken(check.name, ranks, errors)]
    return check.judge(ranks, [words["fact"] for words in told])


def _broken(name: str, ranks: DoctorRanks, errors: dict[int, str]) -> Finding:
    shown = "; ".join(f"{ranks.name(rank)}: {text}" for rank, text in list(errors.items())[:4])
    more = f"; and {len(errors) - 4} more" if len(errors) > 4 else ""
    return Finding(name, Verdict.FAIL, shown + more, "no error on any rank", "mend what the first rank says")


def _overdue(name: str, ranks: DoctorRanks) -> None:
    text = f"{ranks.name(ranks.rank_env.rank)} was still busy with {name} after {ranks.limit_s:g} s"
    cause_file.write(ExitCode.HUNG, ranks.rank_env.rank, text)
    say(f"phalanx doctor: {text}")
    end(ExitCode.HUNG)

"""One examination: every rank measures its part, and all judge the whole alike."""

import threading
from collections.abc import Sequence
from typing import Any, Protocol

from phalanx.exit import cause_file
from phalanx.exit.codes import ExitCode
from phalanx.exit.messages import end, say

from ..finding import Finding, Verdict
from .ranks import Company, Silent


class Exam(Protocol):
    """`measure` returns JSON and may do collectives; `judge` sees what every rank measured, in order of rank."""

    @property
    def name(self) -> str: ...

    def measure(self, company: Company) -> Any: ...

    def judge(self, company: Company, facts: Sequence[Any]) -> list[Finding]: ...


def examine(exam: Exam, company: Company) -> list[Finding]:
    """All ranks call it, in the same order of examinations. Raises Silent when a rank neither measured nor failed.

    A rank whose own measurement takes longer than the limit ends with code 5. Those that wait for it in a collective
    give up after half of that, so that it is the only one.
    """
    alarm = threading.Timer(company.limit_s, _overdue, (exam.name, company))
    alarm.daemon = True
    alarm.start()
    try:
        fact = {"fact": exam.measure(company)}
    except Silent:
        raise
    except Exception as error:  # whatever it was, the others are told
        fact = {"error": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}
    finally:
        alarm.cancel()
    told = company.gather(exam.name, fact)
    if errors := {rank: words["error"] for rank, words in enumerate(told) if "error" in words}:
        return [_broken(exam.name, company, errors)]
    return exam.judge(company, [words["fact"] for words in told])


def _broken(name: str, company: Company, errors: dict[int, str]) -> Finding:
    shown = "; ".join(f"{company.name(rank)}: {text}" for rank, text in list(errors.items())[:4])
    more = f"; and {len(errors) - 4} more" if len(errors) > 4 else ""
    return Finding(name, Verdict.FAIL, shown + more, "no error on any rank", "mend what the first rank says")


def _overdue(name: str, company: Company) -> None:
    text = f"{company.name(company.place.rank)} was still busy with {name} after {company.limit_s:g} s"
    cause_file.leave(ExitCode.HUNG, company.place.rank, text)
    say(f"phalanx doctor: {text}")
    end(ExitCode.HUNG)

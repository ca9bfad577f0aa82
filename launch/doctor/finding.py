"""The findings of a check: as a table for people, as JSON for programs."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from phalanx.common.columns import wrap


class Verdict(StrEnum):
    """Only FAIL makes the command fail; UNKNOWN is what could not be checked here, and says why."""

    PASS = "pass"
    WARN = "warn"
    FAIL = "fail"
    UNKNOWN = "not checked"


@dataclass(frozen=True)
class Finding:
    """One line of the report. `measured` and `expected` carry their units; `advice` is what to do, where that is known."""

    name: str
    verdict: Verdict
    measured: str
    expected: str
    advice: str = ""


def passes(name: str, measured: str, expected: str) -> Finding:
    return Finding(name, Verdict.PASS, measured, expected)


def not_checked(name: str, why: str, expected: str, advice: str = "") -> Finding:
    return Finding(name, Verdict.UNKNOWN, why, expected, advice)


def failed(findings: Sequence[Finding]) -> bool:
    return any(finding.verdict is Verdict.FAIL for finding in findings)


def table(findings: Sequence[Finding], columns: int | None = None) -> str:
    """Of each what was measured, what was expected and what to do, on lines of no more than `columns` characters."""
    width = max((len(finding.name) for finding in findings), default=0)
    indent = " " * (13 + width + 2)
    lines = []
    for finding in findings:
        word = finding.verdict.value
        shown = word.upper() if finding.verdict is Verdict.FAIL else word
        lines.append(f"{shown:<13}{finding.name:<{width}}  {finding.measured}")
        lines.append(f"{indent}expected: {finding.expected}")
        if finding.advice:
            lines.append(f"{indent}do: {finding.advice}")
    counts = {verdict: sum(finding.verdict is verdict for finding in findings) for verdict in Verdict}
    lines.append(", ".join(f"{count} {verdict.value}" for verdict, count in counts.items() if count))
    return wrap("\n".join(lines), columns, f"{indent}  ")


def as_json(findings: Sequence[Finding]) -> str:
    """{"failed": true or false, "findings": [{"name", "verdict", "measured", "expected", "advice"}, …]}"""
    return json.dumps({"failed": failed(findings), "findings": [asdict(finding) for finding in findings]}, indent=1)


def from_json(text: str) -> list[Finding]:
    """What `as_json` wrote. Raises ValueError or KeyError for anything else."""
    return [_finding(words) for words in json.loads(text)["findings"]]


def _finding(words: Mapping[str, Any]) -> Finding:
    return Finding(**{**words, "verdict": Verdict(words["verdict"])})

"""Whether the server of MLflow or trackio that the environment names can be reached from rank 0."""

import os
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from ..finding import Finding, Verdict, passes
from ..protocol.ranks import DoctorRanks
from .tracking import why_unreachable

_EXPECTED = "no server, or it answers"


class TrackerServer:
    def __init__(self, name: str, variable: str) -> None:
        self.name = name
        self._variable = variable

    def measure(self, ranks: DoctorRanks) -> dict[str, Any]:
        """Rank 0 alone writes to it. What is reported has no user, password or query."""
        parts = urlsplit(os.environ.get(self._variable, ""))
        if not ranks.rank_env.is_rank_zero or parts.scheme not in ("http", "https"):
            return {"url": None}
        url = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
        return {"url": url, "why": why_unreachable(url)}

    def judge(self, ranks: DoctorRanks, facts: Sequence[Mapping[str, Any]]) -> list[Finding]:
        told = facts[0]
        if told["url"] is None:
            return [passes(self.name, f"{self._variable} names no server", _EXPECTED)]
        if told["why"]:
            text = f"{told['url']} cannot be reached from {ranks.hosts[0]}: {told['why']}"
            advice = f"mend {self._variable}, start the server, or set HTTPS_PROXY where there is a proxy"
            return [Finding(self.name, Verdict.FAIL, text, _EXPECTED, advice)]
        return [passes(self.name, f"{told['url']} answers", _EXPECTED)]

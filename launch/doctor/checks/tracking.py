"""Whether W&B can be reached from rank 0, where it is to be used online."""

import os
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from typing import Any

from phalanx.config.wandb_mode import resolve_mode

from ..finding import Finding, Verdict, passes
from ..protocol.ranks import DoctorRanks

_ANSWER_S = 10.0
_EXPECTED = "offline or disabled, or its server answers"


class Tracking:
    name = "W&B"

    def measure(self, ranks: DoctorRanks) -> dict[str, Any]:
        """Rank 0 alone writes to W&B."""
        if not ranks.rank_env.is_rank_zero:
            return {}
        mode = resolve_mode("auto", os.environ)
        if mode != "online":
            return {"mode": mode}
        import wandb  # knows its own settings files and variables; half a second

        url = str(wandb.setup().settings.base_url)
        return {"mode": mode, "url": url, "why": why_unreachable(url)}

    def judge(self, ranks: DoctorRanks, facts: Sequence[Mapping[str, Any]]) -> list[Finding]:
        told = facts[0]
        if told["mode"] != "online":
            why = "no key" if told["mode"] == "offline" and not os.environ.get("WANDB_MODE") else "as it is set"
            return [passes(self.name, f"{told['mode']} ({why}); nothing is sent", _EXPECTED)]
        if told["why"]:
            text = f"online, and {told['url']} cannot be reached from {ranks.hosts[0]}: {told['why']}"
            advice = "set WANDB_MODE=offline and sync later, or HTTPS_PROXY where there is a proxy"
            return [Finding(self.name, Verdict.FAIL, text, _EXPECTED, advice)]
        return [passes(self.name, f"online, {told['url']} answers", _EXPECTED)]


def why_unreachable(url: str) -> str:
    """Empty where the server answers anything at all. Proxies are taken from the environment."""
    try:
        urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=_ANSWER_S).close()
    except urllib.error.HTTPError:
        return ""
    except OSError as error:
        return str(getattr(error, "reason", error))
    return ""

"""The rate of a large matrix product on the Tensor Cores, against the card's peak and the other cards."""

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

import torch

from ...finding import Finding, Verdict, not_checked, passes
from ...peaks import peak_of
from ...protocol.ranks import DoctorRanks
from ...protocol.stopwatch import mean_seconds
from .facts import gpu_facts
from .health import own_gpu

_SIDE = 8192
_REPEATS = 20
_OF_PEAK = 0.4  # cards that are held to their power cap reach half of the data sheet's figure
_OF_OTHERS = 0.85
_PRECISIONS = {"bf16": torch.bfloat16, "fp16": torch.float16, "tf32": torch.float32}


class Matmul:
    name = "matmul"

    def measure(self, ranks: DoctorRanks) -> dict[str, Any] | None:
        index = own_gpu(ranks)
        if index is None:
            return None
        model = torch.cuda.get_device_properties(index).name
        peak = peak_of(model)
        has_bf16 = torch.cuda.get_device_capability(index) >= (8, 0)  # and so tf32
        asked = [name for name in _PRECISIONS if has_bf16 or name == "fp16"]
        rates = {name: _tflop_per_s(name, torch.device("cuda", index)) for name in asked}
        slowdowns = (gpu_facts(index) or {}).get("slowdowns", [])  # while it is still hot
        return {
            "model": model,
            "rates": rates,
            "slowdowns": slowdowns,
            "peaks": {name: getattr(peak, name, None) for name in asked},
        }

    def judge(self, ranks: DoctorRanks, facts: Sequence[Mapping[str, Any] | None]) -> list[Finding]:
        have = {rank: fact for rank, fact in enumerate(facts) if fact is not None}
        if not have:
            expected = f"{_OF_PEAK:.0%} of the card's peak, in each of {', '.join(_PRECISIONS)}"
            return [not_checked(self.name, "no GPU", expected)]
        precisions = dict.fromkeys(name for fact in have.values() for name in fact["rates"])
        return [_judged(ranks, have, name) for name in precisions]


def _judged(ranks: DoctorRanks, have: Mapping[int, Mapping[str, Any]], precision: str) -> Finding:
    rates = {rank: fact["rates"][precision] for rank, fact in have.items() if precision in fact["rates"]}
    slowest = min(rates, key=lambda rank: rates[rank])
    model, peak, rate = have[slowest]["model"], have[slowest]["peaks"][precision], rates[slowest]
    usual = median(value for rank, value in rates.items() if have[rank]["model"] == model)
    measured = f"{rate:.0f} TFLOP/s on {ranks.name(slowest)}, the slowest; the median is {usual:.0f}"
    if slowdowns := have[slowest]["slowdowns"]:
        measured += f"; slowed by {', '.join(slowdowns)}"
    known = f"{_OF_PEAK:.0%} of {peak:g} TFLOP/s, the peak of {model}" if peak else f"no peak is known of {model}"
    expected = f"{known}, and {_OF_OTHERS:.0%} of the median"
    name, advice = f"matmul {precision}", "run without this GPU; see its clocks, its heat and who else is on it"
    slow = (peak is not None and rate < _OF_PEAK * peak) or rate < _OF_OTHERS * usual
    return Finding(name, Verdict.FAIL, measured, expected, advice) if slow else passes(name, measured, expected)


def _tflop_per_s(precision: str, where: torch.device) -> float:
    """A product of two square matrices of side n is 2n^3 operations."""
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    try:
        a = torch.randn(_SIDE, _SIDE, device=where).to(_PRECISIONS[precision])
        b = torch.randn(_SIDE, _SIDE, device=where).to(_PRECISIONS[precision])
        seconds = mean_seconds(where, lambda: a @ b, _REPEATS)
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before
    return 2 * _SIDE**3 / seconds / 1e12

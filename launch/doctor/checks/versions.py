"""Python, torch, CUDA, the GPU driver and NCCL: the same on all ranks, and able to work together."""

import os
import platform
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from phalanx.system.gpu_visibility import given_gpus, why_no_gpu
from phalanx.system.nvml import driver_version, has_driver

from ..finding import Finding, Verdict, not_checked, passes
from ..protocol.ranks import DoctorRanks

_PYTHON, _TORCH = (3, 11), (2, 11)
# The oldest driver for Linux that runs programs of a major version of CUDA (CUDA Toolkit Release Notes, table "CUDA
# Toolkit and Minimum Required Driver Version for CUDA Minor Version Compatibility").
_OLDEST_DRIVER = {11: (450, 80), 12: (525, 60), 13: (580, 65)}


class Versions:
    name = "versions"

    def measure(self, ranks: DoctorRanks) -> dict[str, Any]:
        gpus = torch.cuda.is_available()
        index = ranks.rank_env.local_rank % torch.cuda.device_count() if gpus else None
        capability = None if index is None else torch.cuda.get_device_capability(index)
        library: Any = torch.cuda.nccl  # untyped
        nccl = ".".join(map(str, library.version())) if torch.distributed.is_nccl_available() else None
        return {
            "Python": platform.python_version(),
            "torch": str(torch.__version__),
            "CUDA": torch.version.cuda,
            "NCCL": nccl,
            "driver": driver_version(),
            "driver_there": has_driver(),
            "gpus": torch.cuda.device_count() if gpus else 0,
            "given": given_gpus(os.environ),
            "blindness": None if gpus else why_no_gpu(),
            "capability": f"{capability[0]}.{capability[1]}" if capability else None,
            "built_for": torch.cuda.get_arch_list() if gpus else [],
        }

    def judge(self, ranks: DoctorRanks, facts: Sequence[Mapping[str, Any]]) -> list[Finding]:
        return [_same(ranks, facts), _new_enough(facts[0]), _fitting(ranks, facts)]


def _same(ranks: DoctorRanks, facts: Sequence[Mapping[str, Any]]) -> Finding:
    names, expected = ("Python", "torch", "CUDA", "NCCL", "driver"), "the same on all ranks"
    for name in names:
        others = [rank for rank, fact in enumerate(facts) if fact[name] != facts[0][name]]
        if others:
            measured = f"{name} {facts[0][name]} on rank 0, {facts[others[0]][name]} on {ranks.names(others[:4])}"
            return Finding(
                "versions", Verdict.FAIL, measured, expected, "give all nodes the same image or virtual environment"
            )
    shown = ", ".join(f"{name} {facts[0][name]}" for name in names if facts[0][name])
    return passes("versions", shown, expected)


def _new_enough(fact: Mapping[str, Any]) -> Finding:
    measured = f"Python {fact['Python']}, torch {fact['torch']}"
    expected = f"Python {_shown(_PYTHON)} and torch {_shown(_TORCH)}, or newer"
    if _numbers(fact["Python"]) >= _PYTHON and _numbers(fact["torch"]) >= _TORCH:
        return passes("releases", measured, expected)
    return Finding("releases", Verdict.FAIL, measured, expected, "install newer ones")


def _fitting(ranks: DoctorRanks, facts: Sequence[Mapping[str, Any]]) -> Finding:
    """CUDA, driver and card."""
    name, expected = "CUDA and driver", "a driver that runs torch's CUDA, and a torch built for the card"
    blind = [rank for rank, fact in enumerate(facts) if fact["driver_there"] and not fact["gpus"]]
    if blind and facts[blind[0]]["CUDA"] is None:
        text = f"torch {facts[blind[0]]['torch']} is built without CUDA on {ranks.names(blind[:4])}, which has a driver"
        return Finding(name, Verdict.FAIL, text, expected, "install torch from the index of a CUDA version")
    for fact in (fact for fact in facts if fact["gpus"]):
        oldest = _OLDEST_DRIVER.get(int(fact["CUDA"].partition(".")[0])) if fact["CUDA"] else None
        if fact["driver"] and oldest and _numbers(fact["driver"]) < oldest:
            text = f"driver {fact['driver']} with CUDA {fact['CUDA']}, which needs {_shown(oldest)} or newer"
            return Finding(name, Verdict.FAIL, text, expected, "update the driver, or install torch for an older CUDA")
        if fact["capability"] and not runs_on(fact["capability"], fact["built_for"]):
            text = f"torch is built for {', '.join(fact['built_for'])}, and the card is of {fact['capability']}"
            return Finding(name, Verdict.FAIL, text, expected, "install a torch that is built for this card")
    seeing = next((fact for fact in facts if fact["gpus"]), None)
    if blind:
        text = f"a driver is there and torch sees no GPU on {ranks.names(blind[:4])}"
        advice = "see what nvidia-smi says there, and whether CUDA_VISIBLE_DEVICES hides them"
        given = [rank for rank in blind if facts[rank]["given"]]
        if given:  # a run would end with code 2
            text = f"{facts[given[0]]['given']} GPUs are there and torch sees none on {ranks.names(given[:4])}"
            text += f": {facts[given[0]]['blindness']}"
        return Finding(name, Verdict.FAIL if given else Verdict.WARN, text, expected, advice)
    if seeing is None:
        return not_checked(name, "no GPU", expected)
    return passes(name, f"CUDA {seeing['CUDA']}, driver {seeing['driver'] or 'unknown'}", expected)


def runs_on(capability: str, built_for: Sequence[str]) -> bool:
    """Whether code for one of `built_for` (sm_80, compute_90, sm_90a …) runs on a card of `capability` (8.6).

    Machine code runs on later cards of its major version, portable code (compute_) on all later ones (CUDA C++
    Programming Guide, "Binary Compatibility" and "PTX Compatibility").
    """
    major, minor = map(int, capability.split("."))
    for word in built_for:
        kind, _, digits = word.partition("_")
        number = int("".join(filter(str.isdigit, digits)))
        at_least = divmod(number, 10)
        exact = digits[-1:].isalpha()  # of one card alone
        same = at_least == (major, minor) if exact else at_least[0] == major and at_least[1] <= minor
        if same if kind == "sm" else at_least <= (major, minor) and not exact:
            return True
    return False


def _numbers(version: str) -> tuple[int, ...]:
    """2.14.1+cu130 is (2, 14)."""
    return tuple(int("".join(filter(str.isdigit, part)) or 0) for part in version.split("+")[0].split(".")[:2])


def _shown(numbers: Sequence[int]) -> str:
    return ".".join(map(str, numbers))

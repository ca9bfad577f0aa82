"""Finds GPUs that programs other than Phalanx compute on, which hold none of our locks."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from phalanx.exit.codes import ConfigError
from phalanx.exit.messages import say

from .gpu_locks import command_line_of
from .machine import Gpu, ask

_MIB = 2**20
_USED_MIB = 1024  # more than a driver or a desktop keeps; in use by somebody whom a container may hide


def gpus_in_use_elsewhere(gpus: Sequence[Gpu], environ: Mapping[str, str]) -> dict[str, str]:
    """The GPUs that are not free, for other programs compute on them, with who does, by their UUIDs.

    Those that CUDA_VISIBLE_DEVICES names are taken all the same, and that is said.
    """
    found = gpus_in_use(gpus)
    if "CUDA_VISIBLE_DEVICES" not in environ:
        return found
    if found:
        say(f"phalanx: {'; '.join(found.values())}; CUDA_VISIBLE_DEVICES names it, so it is used beside")
    return {}


def gpus_in_use(gpus: Sequence[Gpu]) -> dict[str, str]:
    """By the UUIDs of those `gpus` that a program computes on, who does. Of slices (MIG) nothing is known.

    A driver that does not tell keeps nobody from training.
    """
    whole = [gpu.uuid for gpu in gpus if not gpu.slice]
    try:
        told = ask(lambda nvml: {uuid: _user(nvml, uuid) for uuid in whole}) if whole else None
    except ConfigError:
        told = None
    return {uuid: who for uuid, who in (told or {}).items() if who is not None}


def _user(nvml: Any, uuid: str) -> str | None:
    handle = nvml.nvmlDeviceGetHandleByUUID(uuid)
    with suppress(nvml.NVMLError):
        for program in nvml.nvmlDeviceGetComputeRunningProcesses(handle):
            memory = f"{program.usedGpuMemory // _MIB} MiB of " if program.usedGpuMemory else ""
            who = command_line_of(program.pid) or "of another container or user"
            return f"process {program.pid} uses {memory}{uuid} ({who})"
    with suppress(nvml.NVMLError):
        used = _used_bytes(nvml, handle) // _MIB
        if used >= _USED_MIB:
            return f"a program that cannot be seen from here has {used} MiB of {uuid}"
    return None


def _used_bytes(nvml: Any, handle: Any) -> int:
    """Without what the driver keeps for itself, which drivers before 510 do not tell apart."""
    try:
        return int(nvml.nvmlDeviceGetMemoryInfo(handle, version=nvml.nvmlMemory_v2).used)
    except nvml.NVMLError:
        return int(nvml.nvmlDeviceGetMemoryInfo(handle).used)

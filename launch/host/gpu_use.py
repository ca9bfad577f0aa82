"""What other programs do with the GPUs, which no claim of ours tells of."""

import re
from collections.abc import Mapping, Sequence

from phalanx.exit.codes import ConfigError
from phalanx.exit.messages import say

from .gpu_locks import command
from .machine import Gpu, ask

_USED_MIB = 1024  # more than a driver or a desktop keeps; in use by somebody whom a container may hide


def others(gpus: Sequence[Gpu], environ: Mapping[str, str]) -> dict[str, str]:
    """The GPUs that are not free, for other programs compute on them, with who does, by their UUIDs.

    Those that CUDA_VISIBLE_DEVICES names are taken all the same, and that is said.
    """
    found = busy(gpus)
    if "CUDA_VISIBLE_DEVICES" not in environ:
        return found
    if found:
        say(f"phalanx: {'; '.join(found.values())}; CUDA_VISIBLE_DEVICES names it, so it is used beside")
    return {}


def busy(gpus: Sequence[Gpu]) -> dict[str, str]:
    """By the UUIDs of those `gpus` that a program computes on, who does. Of slices (MIG) nothing is known."""
    whole = {gpu.uuid for gpu in gpus if not gpu.slice}
    if not whole:
        return {}
    found = {
        uuid: f"a program that cannot be seen from here has {used} MiB of {uuid}"
        for uuid, used in _rows("--query-gpu=uuid,memory.used", 2)
        if used.isdecimal() and int(used) >= _USED_MIB
    }
    for uuid, pid, used in _rows("--query-compute-apps=gpu_uuid,pid,used_memory", 3):
        if pid.isdecimal():
            memory = f"{used} MiB of " if used.isdecimal() else ""
            found[uuid] = f"process {pid} uses {memory}{uuid} ({command(int(pid)) or 'of another container or user'})"
    return {uuid: who for uuid, who in found.items() if uuid in whole}


def _rows(question: str, fields: int) -> list[list[str]]:
    """Those of an answer that are as they should be: a driver that does not tell keeps nobody from training."""
    try:
        lines = ask(question, "--format=csv,noheader,nounits")
    except ConfigError:
        return []
    rows = [re.split(r",\s*", line.strip()) for line in lines]
    return [row for row in rows if len(row) == fields]

"""What this machine has for ranks: cores, NUMA nodes, and the GPUs that the caller may use. Found without torch."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from phalanx.exit.codes import ConfigError
from phalanx.system import cpu_count

_ANSWER_S = 30.0  # a driver that is loaded for this one question, with eight GPUs, takes up to ten
_WITHOUT = "Type CUDA_VISIBLE_DEVICES= before the command to train without GPUs"
_NODES = Path("/sys/devices/system/node")
_PCI = Path("/sys/bus/pci/devices")


@dataclass(frozen=True)
class Gpu:
    """A GPU, or a slice of one (MIG), by the name that CUDA_VISIBLE_DEVICES takes; `node` is its NUMA node."""

    uuid: str
    node: int
    slice: bool


@dataclass(frozen=True)
class Machine:
    """`cores` are those this process may run on, `nodes` the cores of each NUMA node, and
    `quota` is how many CPUs a container may use at a time, None for all.
    """

    cores: frozenset[int]
    gpus: tuple[Gpu, ...]
    nodes: Mapping[int, frozenset[int]]
    quota: int | None = None

    @property
    def cpus(self) -> int:
        """As many as there are to compute on."""
        return len(self.cores) if self.quota is None else max(1, min(len(self.cores), self.quota))


def look(environ: Mapping[str, str], wants_gpus: bool) -> Machine:
    """This machine. Raises ConfigError when its GPUs cannot be counted, or CUDA_VISIBLE_DEVICES names none of them."""
    visible = environ.get("CUDA_VISIBLE_DEVICES")
    gpus = _gpus() if wants_gpus and lists_gpus(environ) else ()
    if visible is not None:
        gpus = _visible(gpus, visible)
    nodes = {
        int(folder.name.removeprefix("node")): frozenset(numbers((folder / "cpulist").read_text()))
        for folder in _NODES.glob("node[0-9]*")
    }
    return Machine(
        cores=frozenset(os.sched_getaffinity(0)),
        gpus=gpus,
        nodes=nodes,
        quota=cpu_count.own_quota(),
    )


def lists_gpus(environ: Mapping[str, str]) -> bool:
    """Whether there is a driver to ask for GPUs, and CUDA_VISIBLE_DEVICES does not hide them all."""
    hidden = environ.get("CUDA_VISIBLE_DEVICES", "all").strip() == ""
    return shutil.which("nvidia-smi") is not None and not hidden


def numbers(ranges: str) -> list[int]:
    """The numbers in a list of ranges as the kernel writes it, such as 0-3,8."""
    found: list[int] = []
    for part in filter(None, ranges.strip().split(",")):
        first, _, last = part.partition("-")
        found += range(int(first), int(last or first) + 1)
    return found


def ranges(numbers: Iterable[int]) -> str:
    """What `numbers` reads."""
    found: list[list[int]] = []
    for number in sorted(numbers):
        if found and number == found[-1][1] + 1:
            found[-1][1] = number
        else:
            found.append([number, number])
    return ",".join(f"{first}-{last}" for first, last in found)


def _gpus() -> tuple[Gpu, ...]:
    """All GPUs, in the order of the PCI bus; where one is cut into slices, those in its place."""
    fields = "uuid,pci.bus_id,mig.mode.current"
    rows = [re.split(r",\s*", line) for line in ask(f"--query-gpu={fields}", "--format=csv,noheader")]
    if wrong := [row for row in rows if len(row) != 3 or not row[0].startswith("GPU-")]:
        raise ConfigError(f"nvidia-smi answers {', '.join(wrong[0])!r} when asked for {fields}. {_WITHOUT}")
    slices = _slices() if any(mode == "Enabled" for _, _, mode in rows) else {}
    found: list[Gpu] = []
    for uuid, bus, mode in rows:
        sliced = mode == "Enabled"
        found += [Gpu(name, _node(bus), sliced) for name in (slices.get(uuid, []) if sliced else [uuid])]
    return tuple(found)


def _slices() -> dict[str, list[str]]:
    """The slices of each GPU that has some."""
    found: dict[str, list[str]] = {}
    gpu = ""
    for line in ask("-L"):
        if named := re.search(r"\(UUID: (GPU-[^)]+)\)", line):
            gpu = named[1]
        elif named := re.search(r"\(UUID: (MIG-[^)]+)\)", line):
            found.setdefault(gpu, []).append(named[1])
    return found


def ask(*question: str) -> list[str]:
    """The lines that nvidia-smi answers. Raises ConfigError when it does not."""
    try:
        answer = subprocess.run(["nvidia-smi", *question], capture_output=True, text=True, timeout=_ANSWER_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ConfigError(f"The GPUs of this machine cannot be counted: {error}. {_WITHOUT}") from None
    if answer.returncode != 0:
        said = " ".join((answer.stdout + answer.stderr).split())
        raise ConfigError(f"The GPUs of this machine cannot be counted: nvidia-smi says {said!r}. {_WITHOUT}")
    return [line for line in answer.stdout.splitlines() if line.strip()]


def _node(bus: str) -> int:
    """The NUMA node of a device. nvidia-smi writes eight digits of a PCI domain, the kernel four."""
    domain, _, rest = bus.lower().partition(":")
    try:
        return max(0, int((_PCI / f"{domain[-4:]}:{rest}" / "numa_node").read_text()))  # -1 where there is only one
    except (OSError, ValueError):
        return 0


def _visible(gpus: Sequence[Gpu], visible: str) -> tuple[Gpu, ...]:
    """Those of `gpus` that CUDA_VISIBLE_DEVICES names: by number, or by the beginning of a UUID; -1 ends the list."""
    chosen: list[Gpu] = []
    for name in (word.strip() for word in visible.split(",") if word.strip()):
        if name == "-1":
            break
        matching = [gpu for number, gpu in enumerate(gpus) if name == str(number) or gpu.uuid.startswith(name)]
        if not gpus:
            break  # whatever it names, there is no GPU to count
        if len(matching) != 1 or matching[0] in chosen:
            what = "twice the same GPU" if len(matching) == 1 else f"{name}, which is {len(matching) or 'none'} of them"
            raise ConfigError(
                f"CUDA_VISIBLE_DEVICES={visible} names {what}. This machine has {len(gpus)}, "
                f"numbered from 0: {', '.join(gpu.uuid for gpu in gpus)}"
            )
        chosen += matching
    return tuple(chosen)

"""What this machine has for ranks: cores, NUMA nodes, and the GPUs that the caller may use. Found without torch."""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from phalanx.exit.codes import ConfigError
from phalanx.system import cpu_count, nvml

_REPAIR = "See what nvidia-smi says; a driver that was updated needs a restart of the machine"
_WITHOUT = "Type CUDA_VISIBLE_DEVICES= before the command to train without GPUs"
_NODES = Path("/sys/devices/system/node")

Found = TypeVar("Found")


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


def this_machine(environ: Mapping[str, str], wants_gpus: bool) -> Machine:
    """This machine. Raises ConfigError when its GPUs cannot be counted, or CUDA_VISIBLE_DEVICES names none of them."""
    visible = environ.get("CUDA_VISIBLE_DEVICES")
    hidden = visible is not None and not visible.strip()
    gpus = _gpus() if wants_gpus and not hidden else ()
    if visible is not None:
        gpus = _visible(gpus, visible)
    nodes = {
        int(folder.name.removeprefix("node")): frozenset(parse_ranges((folder / "cpulist").read_text()))
        for folder in _NODES.glob("node[0-9]*")
    }
    return Machine(
        cores=frozenset(os.sched_getaffinity(0)),
        gpus=gpus,
        nodes=nodes,
        quota=cpu_count.own_quota(),
    )


def parse_ranges(ranges: str) -> list[int]:
    """The numbers in a list of ranges as the kernel writes it, such as 0-3,8."""
    found: list[int] = []
    for part in filter(None, ranges.strip().split(",")):
        first, _, last = part.partition("-")
        found += range(int(first), int(last or first) + 1)
    return found


def format_ranges(numbers: Iterable[int]) -> str:
    """What `parse_ranges` reads."""
    found: list[list[int]] = []
    for number in sorted(numbers):
        if found and number == found[-1][1] + 1:
            found[-1][1] = number
        else:
            found.append([number, number])
    return ",".join(f"{first}-{last}" for first, last in found)


def _gpus() -> tuple[Gpu, ...]:
    """All GPUs, in the order of the PCI bus; where one is cut into slices, those in its place."""
    return ask(_listed) or ()


def ask(question: Callable[[Any], Found]) -> Found | None:
    """What `question` finds out from NVML; None without an NVIDIA driver. Raises ConfigError when it does not answer."""
    try:
        return nvml.ask(question)
    except nvml.DriverError as error:
        raise ConfigError(f"The GPUs of this machine cannot be counted: {error}. {_REPAIR}. {_WITHOUT}") from None


def _listed(library: Any) -> tuple[Gpu, ...]:
    found: list[Gpu] = []
    for number in range(library.nvmlDeviceGetCount()):
        try:
            handle = library.nvmlDeviceGetHandleByIndex(number)
        except library.NVMLError as error:
            if error.value == library.NVML_ERROR_NO_PERMISSION:  # a control group gives it to somebody else
                continue
            raise
        node = _node(nvml.text(library.nvmlDeviceGetPciInfo(handle).busId))
        sliced = _is_sliced(library, handle)
        handles = _slices(library, handle) if sliced else [handle]
        found += [Gpu(nvml.text(library.nvmlDeviceGetUUID(one)), node, sliced) for one in handles]
    if not found:
        raise nvml.DriverError("NVML lists no GPU that may be used from here")
    return tuple(found)


def _is_sliced(library: Any, handle: Any) -> bool:
    with suppress(library.NVMLError):  # most GPUs cannot be sliced
        return bool(library.nvmlDeviceGetMigMode(handle)[0] == library.NVML_DEVICE_MIG_ENABLE)
    return False


def _slices(library: Any, handle: Any) -> list[Any]:
    """The slices of a GPU: places for them that are empty, or another control group's, do not count."""
    found = []
    for index in range(library.nvmlDeviceGetMaxMigDeviceCount(handle)):
        with suppress(library.NVMLError):
            found.append(library.nvmlDeviceGetMigDeviceHandleByIndex(handle, index))
    return found


def _node(bus: str) -> int:
    """The NUMA node of a device. NVML writes eight digits of a PCI domain, the kernel four."""
    domain, _, rest = bus.lower().partition(":")
    try:
        return max(0, int((nvml.PCI / f"{domain[-4:]}:{rest}" / "numa_node").read_text()))  # -1 where there is only one
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

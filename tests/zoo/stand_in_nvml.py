"""Stands in for pynvml where a test copies it: what it answers stands in a file beside it."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

NVML_ERROR_NOT_SUPPORTED = 3
NVML_ERROR_NO_PERMISSION = 4
NVML_ERROR_NOT_FOUND = 6
NVML_ERROR_DRIVER_NOT_LOADED = 9
NVML_ERROR_LIBRARY_NOT_FOUND = 12
NVML_ERROR_GPU_IS_LOST = 15
NVML_ERROR_LIB_RM_VERSION_MISMATCH = 18
NVML_DEVICE_MIG_ENABLE = 1
nvmlMemory_v2 = 2  # noqa: N816


class NVMLError(Exception):
    def __init__(self, value: int) -> None:
        super().__init__(value)
        self.value = value

    def __str__(self) -> str:
        return {15: "GPU is lost", 18: "Driver/library version mismatch"}.get(self.value, f"error {self.value}")


def _read() -> Any:
    return json.loads(Path(__file__).with_name("nvml.json").read_text())


def _known(value: Any) -> Any:
    """A number below zero stands for the error of that number."""
    if isinstance(value, int) and value < 0:
        raise NVMLError(-value)
    return value


def nvmlInit() -> None:  # noqa: N802
    _known(_read()["init"])


def nvmlShutdown() -> None:  # noqa: N802
    pass


def nvmlDeviceGetCount() -> int:  # noqa: N802
    return len(_read()["gpus"])


def nvmlDeviceGetHandleByIndex(index: int) -> Any:  # noqa: N802
    return _known(_read()["gpus"][index])


def nvmlDeviceGetHandleByUUID(uuid: str) -> Any:  # noqa: N802
    return next(gpu for gpu in _read()["gpus"] if isinstance(gpu, dict) and gpu["uuid"] == uuid)


def nvmlDeviceGetUUID(handle: Any) -> str:  # noqa: N802
    return handle if isinstance(handle, str) else str(handle["uuid"])


def nvmlDeviceGetPciInfo(handle: Any) -> Any:  # noqa: N802
    return SimpleNamespace(busId=handle["bus"].encode())


def nvmlDeviceGetMigMode(handle: Any) -> list[int]:  # noqa: N802
    slices = handle.get("slices", -NVML_ERROR_NOT_SUPPORTED)
    return [int(_known(slices) is not None)] * 2


def nvmlDeviceGetMaxMigDeviceCount(handle: Any) -> int:  # noqa: N802
    return 7


def nvmlDeviceGetMigDeviceHandleByIndex(handle: Any, place: int) -> str:  # noqa: N802
    if place >= len(handle["slices"]) or handle["slices"][place] is None:
        raise NVMLError(NVML_ERROR_NOT_FOUND)
    return str(handle["slices"][place])


def nvmlDeviceGetMemoryInfo(handle: Any, version: int = 1) -> Any:  # noqa: N802
    """Version 2 is not known to older drivers, and version 1 counts what the driver keeps for itself."""
    used = _known(handle.get("used", 0))
    if version == 2 and handle.get("old"):
        raise NVMLError(NVML_ERROR_NOT_SUPPORTED)
    return SimpleNamespace(used=used if version == 2 or handle.get("old") else used + 2**31)


def nvmlDeviceGetComputeRunningProcesses(handle: Any) -> list[Any]:  # noqa: N802
    return [SimpleNamespace(pid=pid, usedGpuMemory=used) for pid, used in _known(handle.get("programs", []))]

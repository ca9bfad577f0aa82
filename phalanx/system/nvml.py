"""NVML, the library of NVIDIA's driver. It is optional (the extra [gpu]): without it a fact is None."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def library() -> Iterator[Any]:
    """NVML, or None where nvidia-ml-py or the driver is not there."""
    try:
        import pynvml
    except ImportError:
        yield None
        return
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        yield None
        return
    try:
        yield pynvml
    finally:
        pynvml.nvmlShutdown()


def driver_version() -> str | None:
    """The version of the GPU driver."""
    with library() as nvml:
        if nvml is None:
            return None
        try:
            version = nvml.nvmlSystemGetDriverVersion()
        except nvml.NVMLError:
            return None
    return version.decode() if isinstance(version, bytes) else str(version)  # older ones answer in bytes

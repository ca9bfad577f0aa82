"""Whether torch sees the GPUs that the launcher assigned to the ranks, and why it does not."""

import os
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from .nvml import DriverError, ask

GIVEN = "PHALANX_GPUS"  # how many GPUs the launcher has given to the ranks of this machine, where it has


def given_gpus(environ: Mapping[str, str]) -> int:
    """GPUs that the launcher has given to the ranks of this machine; 0 where it has given none or says nothing."""
    text = environ.get(GIVEN, "")
    return int(text) if text.isdecimal() else 0


def driver_fault(environ: Mapping[str, str]) -> str | None:
    """Why NVML cannot be asked on a machine with an NVIDIA driver; None where it can, and where GPUs are hidden."""
    if environ.get("CUDA_VISIBLE_DEVICES", "all").strip() in ("", "-1"):
        return None
    try:
        ask(lambda nvml: None)
    except DriverError as error:
        return str(error)
    return None


def why_no_gpu() -> str:
    """Why torch sees no GPU: the text of a message."""
    torch: Any = import_module("torch")  # here, for launchers without it; Any, for its version is untyped
    if torch.version.cuda is None and torch.version.hip is None:
        return f"torch {torch.__version__} is built without CUDA. Install it from the index of a CUDA version"
    try:
        torch.cuda.init()
    except (RuntimeError, AssertionError) as error:
        return " ".join(str(error).split()).rstrip(".")
    return f"CUDA_VISIBLE_DEVICES={os.environ.get('CUDA_VISIBLE_DEVICES', '(not set)')} leaves none"

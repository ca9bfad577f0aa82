"""Norms of the weights in saved files, without torch, which has no part in a launcher."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def weight_norms(before: Path, after: Path) -> dict[str, float | None]:
    """The L2 norm of all weights in the .safetensors file `after`, and of their change since `before`.

    None is what is not finite.
    """
    old, new = _weights(before), _weights(after)
    norms = {
        "the norm of the weights": _norm(new),
        "the norm of the weights' change": _norm({name: new[name] - old[name] for name in new}),
    }
    return {name: norm if math.isfinite(norm) else None for name, norm in norms.items()}


def _norm(arrays: Mapping[str, Any]) -> float:
    import numpy as np

    return math.hypot(*(float(np.linalg.norm(array)) for array in arrays.values()))


def _weights(file: Path) -> dict[str, Any]:
    """The floating-point tensors of a file, each as a flat array of float64."""
    import numpy as np
    from safetensors import deserialize

    found = {}
    for name, tensor in deserialize(file.read_bytes()):  # type: ignore[no-untyped-call]
        kind, data = tensor["dtype"], tensor["data"]
        if kind == "BF16":  # the upper half of a float32
            found[name] = (np.frombuffer(data, "<u2").astype("<u4") << 16).view("<f4").astype(np.float64)
        elif kind in ("F16", "F32", "F64"):
            found[name] = np.frombuffer(data, f"<f{int(kind[1:]) // 8}").astype(np.float64)
    return found

"""Keeps the traces of NCCL's flight recorder: the last collectives of each rank, dumped when one timed out."""

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

_OLDER = "TORCH_NCCL_DEBUG_INFO_TEMP_FILE"  # torch still reads it, after the newer name


def trace_variables(folder: Path, environ: Mapping[str, str]) -> dict[str, str]:
    """The environment variables that have ranks dump traces in `folder`, unless `environ` names another place.

    The value is what a path begins with; a rank adds its number. Torch's own is the same for all runs of a machine.
    """
    return {} if _OLDER in environ else {"TORCH_FR_DUMP_TEMP_FILE": str(folder / "nccl_trace_rank_")}


def keep_traces(folder: Path) -> Path | None:
    """Move the traces out of the temporary `folder`. Returns the new folder; None where there are no traces."""
    found = sorted(folder.glob("nccl_trace_rank_*"))
    if not found:
        return None
    kept = Path(tempfile.mkdtemp(prefix="phalanx-traces-"))
    for trace in found:
        shutil.move(trace, kept)
    return kept

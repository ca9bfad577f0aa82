"""What NCCL's flight recorder left of a start: the last collectives of each rank, written when one took too long."""

import shutil
import tempfile
from pathlib import Path

VARIABLE = "TORCH_FR_DUMP_TEMP_FILE"  # a prefix to which a rank adds its number; torch's own is the same for all runs


def prefix(folder: Path) -> str:
    """What the traces of a start with the temporary folder `folder` begin with."""
    return str(folder / "nccl_trace_rank_")


def keep(folder: Path) -> Path | None:
    """Move the traces out of `folder` to one that stays, and return that; None where there are none."""
    found = sorted(folder.glob("nccl_trace_rank_*"))
    if not found:
        return None
    kept = Path(tempfile.mkdtemp(prefix="phalanx-traces-"))
    for trace in found:
        shutil.move(trace, kept)
    return kept

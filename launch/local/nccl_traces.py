"""What NCCL's flight recorder left of a start: the last collectives of each rank, written when one took too long."""

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

_OLDER = "TORCH_NCCL_DEBUG_INFO_TEMP_FILE"  # torch still reads it, after the newer name


def below(folder: Path, environ: Mapping[str, str]) -> dict[str, str]:
    """What has ranks write their traces below `folder`, unless `environ` says where.

    The value is what a path begins with; a rank adds its number. Torch's own is the same for all runs of a machine.
    """
    return {} if _OLDER in environ else {"TORCH_FR_DUMP_TEMP_FILE": str(folder / "nccl_trace_rank_")}


def keep(folder: Path) -> Path | None:
    """Move the traces out of `folder` to one that stays, and return that; None where there are none."""
    found = sorted(folder.glob("nccl_trace_rank_*"))
    if not found:
        return None
    kept = Path(tempfile.mkdtemp(prefix="phalanx-traces-"))
    for trace in found:
        shutil.move(trace, kept)
    return kept

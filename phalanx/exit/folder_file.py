"""Tell who started a run where its folder is: they name a file in PHALANX_FOLDER_FILE, as `phalanx.run` does."""

import json
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from ..common.files import write_atomic

VARIABLE = "PHALANX_FOLDER_FILE"


def write(folder: Path, trust: Sequence[str] | None) -> None:
    """Write {"folder", "trust"}. Rank 0 alone calls it, anew as soon as it knows more.

    `trust` are the packages that the folder's config may be built from; None is any, of a config that was typed.
    """
    path = os.environ.get(VARIABLE)
    if path is not None:
        with suppress(OSError):
            write_atomic(Path(path), json.dumps({"folder": str(folder), "trust": trust}))

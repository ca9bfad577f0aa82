"""Where each rank stands in its stream: saved with the state of the rank, and restored on as many ranks alone."""

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from phalanx.common.files import read_text
from phalanx.exit.codes import ConfigError
from phalanx.run_folder import names
from phalanx.run_folder.checkpoints import Checkpoints

from ..loading.streams.reader import StreamPosition
from ..loading.streams.stream_dataset import StreamFetcher
from .extra_state import from_plain, to_plain

logger = logging.getLogger(__name__)


def saved(stream: StreamFetcher, taken: int) -> dict[str, Any]:
    """This rank's positions after `taken` samples of the run, one a part, as plain values."""
    return {"parts": [_plain(position) for position in stream.positions(taken)]}


def _plain(found: StreamPosition) -> dict[str, Any]:
    state = to_plain(found.state, "data.train")
    return {"epoch": found.epoch, "read": found.read, "total": found.total, "state": state}


def restore(stream: StreamFetcher, found: Mapping[str, Any] | None, folder: Path) -> None:
    """Continue at positions that `saved` gave; where a run that is extended had no stream, from the beginning."""
    if found is None:
        logger.warning("%s has no position in a stream, so data.train begins at its beginning", folder)
        stream.begin_at([StreamPosition()] * stream.parts)
        return
    parts = found.get("parts", [found])  # without parts: a rank's share was one
    if len(parts) != stream.parts:
        raise ConfigError(
            f"{folder} was saved while a rank read its share of data.train in {len(parts)} part{'s'[: len(parts) > 1]}, "
            f"and now it is {stream.parts}: the set has another number of shards. Name the same data as before, or type "
            f"run.fresh=true to begin anew, or train.init_from={folder} run.name=… for a new run with its weights"
        )
    stream.begin_at([_position(part) for part in parts])


def _position(found: Mapping[str, Any]) -> StreamPosition:
    epoch, read, total = (int(found[name]) for name in ("epoch", "read", "total"))
    return StreamPosition(epoch, read, total, from_plain(found["state"]))


def check_run(run: Path, size: int) -> None:
    """As `check_ranks`, for the newest checkpoint of the run in the folder `run`, if there is one."""
    checkpoints = Checkpoints(run)
    for step in checkpoints.steps()[-1:]:
        folder = checkpoints.folder / names.step_folder(step)
        try:
            manifest = json.loads(read_text(folder / names.MANIFEST))
        except (OSError, ValueError):  # told in its turn, when it is loaded
            return
        if isinstance(manifest, dict) and "world_size" in manifest:
            check_ranks(folder, manifest, size)


def check_ranks(folder: Path, manifest: Mapping[str, Any], size: int) -> None:
    """Raise ConfigError unless the checkpoint was saved by as many ranks as read the stream now."""
    before = manifest["world_size"]
    if before != size:
        raise ConfigError(
            f"data.train is a stream, of which each rank reads a share of its own, and {folder} was saved by {before} "
            f"rank{'s' if before > 1 else ''}; here {'are' if size > 1 else 'is'} {size}. Start {before} as before "
            f"(phalanx run -n {before}), or type run.fresh=true to begin anew, or train.init_from={folder} run.name=… for "
            "a new run with its weights"
        )

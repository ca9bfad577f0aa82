"""Where a start goes on: at the newest good checkpoint, or at the start point of a new run."""

import logging
import time

from phalanx.config.schema import CheckpointConfig
from phalanx.exit.codes import ConfigError
from phalanx.exit.disk_errors import writing
from phalanx.run_folder import lease_holders
from phalanx.run_folder.checkpoints import Checkpoint, Checkpoints

from ..checkpoint import state
from ..checkpoint.open_run import OpenRun
from ..checkpoint.progress import Progress
from ..distributed.world import World
from ..sinks.jsonl import undone_steps
from ..start_point import extend_from
from ..stopping.average_last import AverageLast, restore_average, steps_needed
from ..stopping.retention import retain
from ..tasks.now import Now
from .loop.recorder import saved_step
from .parts.build import Parts

logger = logging.getLogger(__name__)


def continue_or_begin(
    parts: Parts, opened: OpenRun, kept: CheckpointConfig, last: AverageLast | None, world: World, started: float
) -> Progress:
    """Load the newest good checkpoint, else the start point of a new run. All ranks call it."""
    progress = _restore_or_begin(parts, opened, kept, last, world, started)
    progress.world_sizes = sorted({*progress.world_sizes, world.size})
    parts.task.now = Now(progress.step, parts.loader.timeline.steps)
    return progress


def _restore_or_begin(
    parts: Parts, opened: OpenRun, kept: CheckpointConfig, last: AverageLast | None, world: World, started: float
) -> Progress:
    world.watchdog.at("restore", 0)
    checkpoints = Checkpoints(opened.path, opened.incarnation)
    # All ranks take part; rank 0 looks for the checkpoint and sends it.
    newest = world.broadcast_object(
        world.raise_on_all(lambda: _newest(opened, checkpoints) if world.is_rank_zero else None)
    )
    if newest is not None:
        progress = world.raise_on_all(lambda: state.restore(parts.state, newest))  # all ranks take part
        if last is not None:
            restore_average(parts.state, newest)  # all ranks take part
        if world.is_rank_zero:  # the last start may have died before it did
            needed = steps_needed(last, parts.state, progress.step)
            retain(checkpoints, kept, [step for step, _ in progress.top], needed)
        return progress
    began = time.time() - (time.monotonic() - started) if opened.began is None else opened.began
    extends = parts.start_point.extends
    if extends is not None:
        return world.raise_on_all(lambda: extend_from.extend(parts.state, extends, began))  # all ranks take part
    return Progress(began=began)


def undone(opened: OpenRun, step: int) -> dict[str, float]:
    with writing(opened.path):
        return undone_steps(opened.path, step)


def _newest(opened: OpenRun, checkpoints: Checkpoints) -> Checkpoint | None:
    """Rank 0 finds the newest good checkpoint, then cleans up. Raises ConfigError, and changes nothing, if saved
    checkpoints are missing or damaged."""
    found, bad = checkpoints.newest_good()
    with writing(opened.path):  # what cannot be read there could not be written either
        saved = saved_step(opened.path)
    if found is None and (bad or saved):
        told = "; ".join(f"{folder.name}: {why}" for folder, why in bad.items())
        raise ConfigError(
            f"No checkpoint of {checkpoints.folder} can be used ({told or 'there is none'})"
            f"{f', though step {saved} was saved' if saved else ''}. Mount it or bring it back and type the same command "
            "again, or run.fresh=true to set the run aside and begin anew. Nothing was changed"
        )
    with writing(opened.path):
        troubles = checkpoints.clean(bad)
        lease_holders.set_from_step(opened.path, opened.incarnation, 0 if found is None else found.step)
    for trouble in troubles:
        logger.warning("%s; continuing from %s", trouble, "the start" if found is None else found.folder.name)
    return found

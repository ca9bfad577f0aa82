"""The end of a run: data.test, the summary, the last words to the sinks."""

import time
from collections.abc import Mapping
from typing import Any

from phalanx.common.files import finite, write_json
from phalanx.common.meter import goodput
from phalanx.config.metric_direction import TEST
from phalanx.exit import user_error
from phalanx.exit.disk_errors import writing
from phalanx.run_folder import lease, names

from ..checkpoint import weights
from ..checkpoint.open_run import OpenRun
from ..evaluation.best_weights import best_weights
from .loop.run_context import RunContext


def finish(run: RunContext, opened: OpenRun) -> None:
    """Evaluate on data.test, and write the summary, which makes the run finished, so comes last, before the sinks close."""
    progress, world = run.progress, run.world
    world.watchdog.at("finish", progress.step)
    sha256 = weights.weights_sha256(run.parts.state.strategy.full_weights())  # all ranks take part
    tested = _test(run, opened)
    wall_s = time.time() - progress.began
    summary = {
        "steps": progress.step,
        "ended_by": progress.ended_by or "steps",
        "samples": progress.position,
        "skipped": progress.skips,
        **({"skipped_steps": progress.skipped_steps} if progress.skipped_steps else {}),
        "eval": progress.evaluation,
        **tested,
        "best": {"step": progress.best_step, "value": progress.best_value},
        "world_sizes": progress.world_sizes,
        "wall_s": wall_s,
        **goodput(progress.seconds, wall_s),
        "weights_sha256": sha256,
    }
    run.recorder.event("finish", weights_sha256=sha256, ended_by=summary["ended_by"])
    world.raise_on_all(lambda: _write_summary(opened, summary) if world.is_rank_zero else None)
    run.recorder.close({**summary, "folder": str(opened.path)})


def _test(run: RunContext, opened: OpenRun) -> dict[str, Any]:
    """The part of the summary that tells of data.test, evaluated with the best weights. All ranks call it."""
    evaluation, begin = run.parts.evaluations.test, time.monotonic()
    if evaluation is None:
        return {}
    state, progress = run.parts.state, run.progress
    run.world.watchdog.at("evaluate", progress.step)
    facts = {"act": "in the evaluation at the end", "step": progress.step, "set": evaluation.key}
    with (
        run.meter.part("evaluate"),
        user_error.context(**facts),
        best_weights(state, progress, opened.path) as (
            step,
            average,
        ),  # all ranks take part, here and in what follows
    ):
        found = evaluation(state.model, average, run.world)
    run.recorder.write_evaluation(TEST, found, weights_step=step, took_s=round(time.monotonic() - begin, 3))
    return {TEST: found.metrics}


def _write_summary(opened: OpenRun, summary: Mapping[str, Any]) -> None:
    lease.check(opened.path, opened.incarnation)
    with writing(opened.path):
        write_json(opened.path / names.SUMMARY, finite(summary))

"""Evaluate on each set of `data.eval`."""

import time

from phalanx.exit import user_error

from .run_context import RunContext


def evaluate_sets(run: RunContext, *, lines: bool = True) -> dict[str, dict[str, float]]:
    """Evaluate on each set; write the events, and the `lines` unless there are those of this step. All ranks call it."""
    state, step, results = run.parts.state, run.progress.step, dict[str, dict[str, float]]()
    run.world.watchdog.at("evaluate", step)
    for split, evaluation in run.parts.evaluations.sets.items():
        begin = time.monotonic()
        with run.meter.part("evaluate"), user_error.context(act="in an evaluation", step=step, set=evaluation.key):
            # All ranks take part, in one set after the other.
            found = evaluation(state.model, state.updater.average, run.world)
        write = run.recorder.write_evaluation if lines else run.recorder.evaluation_event
        write(split, found, took_s=round(time.monotonic() - begin, 3))
        results[split] = found.metrics
    return results

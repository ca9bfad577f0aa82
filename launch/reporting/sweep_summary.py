"""The last lines of `phalanx sweep`: how the sweep ended, the best trial, and the command that trains it again."""

from collections.abc import Sequence

from phalanx.exit.codes import ExitCode
from phalanx.run_folder import names

from ..common.show import show
from ..search.optuna_study import Search
from ..search.space import words_in_order
from ..search.spec import SweepSpec
from ..sweep import results
from ..sweep.scheduler import Scheduler
from . import code_edits

LEFT = (ExitCode.STOPPED, ExitCode.PREEMPTED)  # codes of a sweep that was told to leave


def show_summary(asked: SweepSpec, found: list[results.TrialRow], code: ExitCode, scheduler: Scheduler) -> None:
    """Show what became of a sweep that ends with `code`, whose trials are `found`."""
    assert asked.sweep.mode is not None
    first = results.best(found, asked.sweep.mode)
    if code in LEFT:
        show(_stopped(found, scheduler.unsaved))
    elif code is ExitCode.BUG:
        show(f"no trial was trained to its end{_commonest(scheduler.search)}")
    elif (elsewhere := sum(row.state == "running" for row in found)) and code is ExitCode.FINISHED:
        show(f"nothing is left to do here; {elsewhere} trials are under way elsewhere")
    elif code is ExitCode.GAVE_UP:
        reason = _commonest(scheduler.search)
        show(f"gave up: more than {asked.sweep.max_failures} trials failed (sweep.max_failures){reason}")
    if edited := code_edits.differences(asked.folder, found):
        show(edited)
    if first is not None:
        show(f"best: {asked.sweep.metric} {first.value:.5g}, trial {first.trial}")
        show(f"page: {asked.folder / names.REPORT}" if code not in LEFT else f"page: phalanx report {asked.folder}")
        show(results.command([*words_in_order(asked.space.typed, first.words), *first.added], asked.sweep.ranks))


def _stopped(found: list[results.TrialRow], unsaved: Sequence[int]) -> str:
    if unsaved:
        named = ", ".join(f"{trial:04d}" for trial in sorted(unsaved))
        return f"stopped; {named} had not saved and was ended: the same command continues from the newest checkpoints"
    if alone := [row.run for row in found if row.state == "stopped"]:
        return f"{', '.join(alone)} was stopped and is saved; the same command continues with it"
    return "stopped, all saved; the same command continues"


def _commonest(search: Search) -> str:
    """Why trials failed, if any did."""
    reasons = search.reasons()
    if not reasons:
        return ""
    first, count = reasons[0]
    failed = sum(each for _, each in reasons)
    told = f"all {failed} failed" if search.all_failed() else f"{failed} failed"
    return f": {told}, {count} of them with: {first}" if len(reasons) > 1 else f": {told} with: {first}"

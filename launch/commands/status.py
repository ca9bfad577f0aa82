"""`phalanx status`: lists runs and sweeps with their state, step, loss and ETA."""

import json
import os
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from itertools import count
from pathlib import Path

import click

from phalanx.common.escaping import on_one_line
from phalanx.run_folder.liveness import LivenessProbe

from ..common.find_run import check_readable, find_run_or_sweep, find_runs, find_sweeps
from ..common.show import show
from ..common.text import duration_text
from ..state.run import RunState, with_job
from ..state.submitted import Submitted, submitted
from ..state.sweep import state_of
from . import backend as backends

_POLL_S = 2.0
_ASK_TURNS = 5  # looks between two questions to the cluster, which many others ask, too
_HEAD = ("RUN", "STATE", "STEP", "LOSS", "EVALUATION", "SAMPLES/S", "ETA", "GOODPUT", "LAST", "WHERE")
_SPARED = (
    "GOODPUT",
    "WHERE",
    "SAMPLES/S",
    "LAST",
    "EVALUATION",
    "LOSS",
)  # dropped in this order where the terminal is narrow


@click.command()
@click.argument("runs", nargs=-1, metavar="[RUN]...")
@click.option("--root", type=Path, default=Path("runs"), show_default=True, help="The folder that holds the runs.")
@click.option("--watch", is_flag=True, help="Look again every two seconds, until Ctrl-C.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a run.")
def status(runs: Sequence[str], root: Path, watch: bool, as_json: bool) -> None:
    """Tell the state of runs and sweeps: all of them, or each RUN, a folder or the name of one.

    running, still (alive, and without a word for long), finished, stopped, preempted, failed, died; queued, starting.
    """
    probe = LivenessProbe(waits=False)
    check_readable(root)
    for turn in count():
        if turn % _ASK_TURNS == 0:
            jobs = submitted(root, lambda name: backends.backend_named(name, os.environ))
        found = _states(runs, root, jobs, probe)
        if as_json:
            text = "\n".join(json.dumps(each.as_json()) for each in found)
        else:
            columns = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
            text = table(found, columns) if found else f"{root} holds no runs yet. Type phalanx run to train one"
        if watch:
            click.clear()
        show(text)
        if not watch:
            return
        try:
            time.sleep(_POLL_S)
        except KeyboardInterrupt:
            return


def _states(words: Sequence[str], root: Path, jobs: Mapping[Path, Submitted], probe: LivenessProbe) -> list[RunState]:
    folders = [find_run_or_sweep(word, root, jobs) for word in words] or _all(root, jobs)
    found = [state_of(folder, time.time(), probe) for folder in folders]
    if probe.unsettled:
        probe.settle()
        found = [state_of(folder, time.time(), probe) for folder in folders]
    states = [with_job(each, jobs.get(each.run.resolve()) if jobs else None) for each in found]
    return [each for each in states if each.state not in ("new", "gone") or each.run.exists()]  # some are deleted now


def _all(root: Path, jobs: Mapping[Path, Submitted]) -> list[Path]:
    begun = find_sweeps(root)
    known = {folder.resolve() for folder in begun}
    runs = find_runs((), root, [folder for folder in jobs if folder not in known])
    return [*(run for run in runs if run not in begun), *begun]


def table(found: Sequence[RunState], columns: int | None = None) -> str:
    """One line a run under a line of heads, without the heads that do not fit into `columns` characters."""
    cells = list(zip(_HEAD, *(tuple(map(on_one_line, _row(each))) for each in found), strict=True))
    spared = iter(_SPARED)
    while columns is not None and _width(cells) > columns and (head := next(spared, None)) is not None:
        cells = [column for column in cells if column[0] != head]
    widths = [max(map(len, column)) for column in cells]
    rows = zip(*cells, strict=True)
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def _width(cells: Sequence[Sequence[str]]) -> int:
    return sum(max(map(len, column)) + 2 for column in cells) - 2


def _row(each: RunState) -> tuple[str, ...]:
    process = [f"{each.host} pid {each.pid}"] if each.pid is not None else []
    where = " ".join([*process, *([f"job {each.job}"] if each.job else [])])
    said = "-" if each.event is None or each.said_s is None else f"{each.event}, {duration_text(each.said_s)} ago"
    return (
        each.run.name,
        each.ended,
        f"{_or(each.step, 'd')}/{_or(each.steps, 'd')}",
        _or(each.loss, ".4g"),
        " ".join(f"{name} {value:.4g}" for name, value in sorted(each.evaluation.items())) or "-",
        _or(each.samples_per_s, ",.0f"),
        "-" if each.eta_s is None else duration_text(each.eta_s),
        _or(each.goodput, ".0%"),
        each.why or said,
        where,
    )


def _or(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)

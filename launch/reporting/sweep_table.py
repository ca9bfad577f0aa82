"""The progress of a sweep on the terminal: a live table, or a line for every trial that ends."""

import time
from collections import Counter
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack, suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any

from phalanx.common.columns import wrap
from phalanx.common.escaping import on_one_line

from ..common.show import show
from ..common.sweep_folder import SWEEP
from ..common.text import duration_text
from ..state.sweep import ENDED
from ..sweep import results
from ..sweep.results import TrialRow

if TYPE_CHECKING:
    from ..sweep.scheduler import Scheduler

_ROWS = 12
_PAUSE = 20  # times what the last renewal took: it tells all trials, however many, and others wait for their turn


class SweepTable(AbstractContextManager["SweepTable"]):
    """Also keeps sweep.json and trials.csv up to date."""

    def __init__(self, is_terminal: bool) -> None:
        self._is_terminal = is_terminal
        self._stack = ExitStack()
        self._live: Any = None
        self._began = time.monotonic()
        self._known: dict[int, tuple[Any, int]] = {}  # of each trial its state and how often it was evaluated
        self._stamp: int | None = None  # of what was on the disk last
        self._again = 0.0  # when to renew it all at the earliest
        self._told: set[int] = set()  # trials whose end was told
        self._done_before: int | None = None

    def __enter__(self) -> "SweepTable":
        if self._is_terminal:
            from rich.live import Live  # here, for other verbs have no use for it

            self._live = self._stack.enter_context(Live(auto_refresh=False, transient=False))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stack.close()

    def show(self, scheduler: "Scheduler") -> None:
        """Renew what is seen, and where there is news what is on the disk, unless that would cost much of the time."""
        began = time.monotonic()
        if began < self._again:
            return
        known = {trial.number: (trial.state, len(trial.intermediate_values)) for trial in scheduler.search.trials()}
        news = known != self._known
        if not news and not self._is_terminal:
            return
        if news and not self._another_wrote(scheduler):
            found = results.write(scheduler, "running")
            self._known, self._stamp = known, _stamp(scheduler)
        else:
            found = results.rows(scheduler)
        self.print_ended(scheduler, found)
        self._again = time.monotonic() + _PAUSE * (time.monotonic() - began)

    def print_ended(self, scheduler: "Scheduler", found: list[TrialRow]) -> None:
        """Of these trials, those whose end was told aside."""
        if self._live is not None:
            self._live.update(self._table(scheduler, found), refresh=True)
            return
        ended = [row for row in found if row.ended and row.trial not in self._told]
        self._told |= {row.trial for row in ended}
        for row in ended:
            show(_line(row, scheduler.plan.metric))

    def _another_wrote(self, scheduler: "Scheduler") -> bool:
        """Whether another process has written what is on the disk since the last time."""
        before, self._stamp = self._stamp, _stamp(scheduler)
        return before not in (None, self._stamp)

    def _table(self, scheduler: "Scheduler", found: list[TrialRow]) -> Any:
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        plan = scheduler.plan
        counts = Counter(row.state for row in found)
        title = wrap(on_one_line(self._title(scheduler, found, counts)), self._live.console.width)
        table = Table(box=None, pad_edge=False)
        for head in ("trial", "state", plan.metric, "step", *_short([each.key for each in plan.space.dimensions])):
            table.add_column(head, no_wrap=True)

        def by_state(row: TrialRow) -> tuple[bool, float]:
            """Those under way first, then the best ones."""
            return row.ended, results.sort_key(row.value, plan.mode)

        for row in sorted(found, key=by_state)[:_ROWS]:
            shown = (
                row.told_state,
                _number(row.value),
                f"{row.step}/{row.steps or '-'}",
                *map(on_one_line, row.chosen),
            )
            table.add_row(str(row.trial), *shown)
        return Group(Text(title, style="italic"), table)

    def _title(self, scheduler: "Scheduler", found: list[TrialRow], counts: "Counter[str]") -> str:
        size = scheduler.search.size
        done = sum(counts[state] for state in ENDED)
        if self._done_before is None:
            self._done_before = done
        taken_s, since = time.monotonic() - self._began, done - self._done_before
        eta = duration_text(taken_s / since * (size - done)) if since else "-"
        first = results.best(found, scheduler.plan.mode)
        best = "-" if first is None else f"{_number(first.value)} (trial {first.trial})"
        states = "".join(f"{counts[state]} {state}, " for state in ("running", "waiting", *ENDED) if counts[state])
        return f"{scheduler.plan.folder.name}: {done}/{size} trials, {states}best {best}, ETA {eta}"


def _short(keys: Sequence[str]) -> Sequence[str]:
    """Their last words where these tell them apart."""
    words = [key.rpartition(".")[2] for key in keys]
    return words if len(set(words)) == len(keys) else keys


def _stamp(scheduler: "Scheduler") -> int | None:
    """When sweep.json was written, by the clock of who wrote it."""
    with suppress(FileNotFoundError):
        return (scheduler.plan.folder / SWEEP).stat().st_mtime_ns
    return None


def _line(row: TrialRow, metric: str) -> str:
    value = row.error.splitlines()[0] if row.error else f"{metric} {_number(row.value)}"
    return f"trial {row.trial}  {row.told_state}  {value}  {' '.join(row.words)}  step {row.step}/{row.steps or '-'}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"

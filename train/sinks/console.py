"""Console output of a run: a live progress line on a terminal, plain lines anywhere else."""

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, TextIO, cast, final

from phalanx.common.columns import wrap
from phalanx.common.escaping import on_one_line
from phalanx.common.event_text import clock_face, of_event, of_line, of_summary

from .sink import Sink

if TYPE_CHECKING:
    from rich.progress import Progress

REDRAW_S = 0.1  # minimum interval: a redraw takes one to two milliseconds


@final
class Console(Sink):
    """Prints the progress of a run of `total_steps` steps to `stream`, such as a `phalanx.common.stdio.Output`.

    `interactive` keeps one live line, with evaluations and events printed above it; None: if `stream` is a terminal.
    `clock` returns seconds.
    """

    def __init__(self, total_steps: int, stream: TextIO, interactive: bool | None, clock: Callable[[], float]) -> None:
        self._total_steps = total_steps
        self._stream = stream
        self._clock = clock
        self._first: tuple[int, float] | None = None  # step and clock of the first line
        self._drawn_s = -math.inf
        alive = stream.isatty() if interactive is None else interactive
        self._live = _live_line(stream, total_steps) if alive else None

    def write(self, line: Mapping[str, object]) -> None:
        if line["split"] != "train":
            self._print(of_line(line, self._total_steps))
            return
        now_s = self._clock()
        to_go = self._time_to_go(line, now_s)
        if self._live is None:
            self._print(of_line(line, self._total_steps, to_go))
        elif now_s - self._drawn_s >= REDRAW_S or line["step"] == self._total_steps:
            self._drawn_s = now_s
            text = of_line(line, self._total_steps, to_go, self._live.console.width)
            self._live.update(
                self._live.task_ids[0], completed=_step(line), description=on_one_line(text), refresh=True
            )

    def event(self, event: Mapping[str, object]) -> None:
        if text := of_event(event, self._total_steps):
            self._print(text)

    def close(self, summary: Mapping[str, object] | None) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None
        for text in of_summary(summary or {}):
            self._print(text)

    def _print(self, text: str) -> None:
        if self._live is None:
            self._stream.write(on_one_line(text) + "\n")
            self._stream.flush()
        else:
            text = wrap(on_one_line(text), self._live.console.width)
            self._live.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def _time_to_go(self, line: Mapping[str, object], now_s: float) -> str:
        """ETA by the mean step time since the first line, evaluations and checkpoints included."""
        step = _step(line)
        first_step, first_s = self._first = self._first or (step, now_s)
        step_time_s = (now_s - first_s) / (step - first_step) if step > first_step else line.get("step_time_s")
        known = isinstance(step_time_s, (int, float)) and math.isfinite(step_time_s)
        return f"ETA {clock_face(cast(float, step_time_s) * (self._total_steps - step))}" if known else ""


def _live_line(stream: TextIO, total_steps: int) -> "Progress | None":
    """The live line, redrawn on request; None on a dumb terminal."""
    from rich.console import Console as Terminal
    from rich.progress import BarColumn, Progress, TextColumn
    from rich.table import Column

    terminal = Terminal(file=stream, force_terminal=True)
    if terminal.is_dumb_terminal:
        return None
    text = TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True, overflow="ellipsis"))
    bar = BarColumn(bar_width=20)
    live = Progress(bar, text, console=terminal, auto_refresh=False, redirect_stdout=False, redirect_stderr=False)
    live.add_task("", total=total_steps)
    live.start()
    terminal.show_cursor(True)  # a killed run could not restore a hidden cursor
    return live


def _step(line: Mapping[str, object]) -> int:
    return cast(int, line["step"])

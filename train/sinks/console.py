"""What a person sees while a run trains: a live line on a terminal, plain lines anywhere else."""

import math
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, TextIO, cast, final

from train.sinks.sink import Sink
from train.sinks.unbreakable import Unbreakable

if TYPE_CHECKING:
    from rich.progress import Progress

REDRAW_S = 0.1  # a drawing costs a millisecond or two, which a fast step would feel
LONGEST_DETAIL = 160  # characters; a traceback belongs in events.jsonl and in the rank's log
NOT_A_METRIC = frozenset(
    {"step", "split", "time", "loss", "lr", "grad_norm", "samples_per_s", "step_time_s", "data_wait_s"}
    | {"tokens_per_s", "mfu", "memory_gib", "page_faults"}
)


@final
class Console(Sink):
    """Writes to `stream` how far a run of `total_steps` steps is.

    `interactive` keeps one live line, with evaluations and events printed above it; None means where `stream` is a
    terminal. `clock` gives seconds. Neither a reader that goes away nor an encoding stops the training.
    """

    def __init__(self, total_steps: int, stream: TextIO, interactive: bool | None, clock: Callable[[], float]) -> None:
        self._total_steps = total_steps
        self._stream = Unbreakable(stream)
        self._clock = clock
        self._first: tuple[int, float] | None = None  # step and clock of the first line
        self._drawn_s = -math.inf
        alive = stream.isatty() if interactive is None else interactive
        self._live = _live_line(self._stream, total_steps) if alive else None

    def write(self, line: Mapping[str, object]) -> None:
        if line["split"] != "train":
            self._print(_joined(f"{line['split']} at {self._at(line)}", *_fields(line, _metrics(line))))
            return
        now_s = self._clock()
        text = _joined(self._at(line), *_fields(line, _watched(line)), _rate(line), self._time_to_go(line, now_s))
        if self._live is None:
            self._print(text)
        elif now_s - self._drawn_s >= REDRAW_S or line["step"] == self._total_steps:
            self._drawn_s = now_s
            self._live.update(self._live.task_ids[0], completed=_step(line), description=_shown(text), refresh=True)

    def event(self, event: Mapping[str, object]) -> None:
        if event["event"] in ("error", "evaluate"):  # the rank that failed first and the line speak for themselves
            return
        details = (f"{key} {_brief(value)}" for key, value in event.items() if key not in ("time", "event", "step"))
        self._print(_joined(f"{event['event']} at {self._at(event)}", *details))

    def close(self, summary: Mapping[str, object] | None) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None
        for text in _results(summary or {}):
            self._print(text)

    def _print(self, text: str) -> None:
        if self._live is None:
            self._stream.write(_shown(text) + "\n")
        else:
            self._live.console.print(_shown(text), markup=False, highlight=False, soft_wrap=True)

    def _at(self, line: Mapping[str, object]) -> str:
        return f"step {_step(line)}/{self._total_steps}"

    def _time_to_go(self, line: Mapping[str, object], now_s: float) -> str:
        """By the pace since the first line, which pauses for evaluations and checkpoints as the rest will."""
        step = _step(line)
        first_step, first_s = self._first = self._first or (step, now_s)
        step_time_s = (now_s - first_s) / (step - first_step) if step > first_step else line.get("step_time_s")
        known = isinstance(step_time_s, (int, float)) and math.isfinite(step_time_s)
        return f"ETA {_clock_face(cast(float, step_time_s) * (self._total_steps - step))}" if known else ""


def _live_line(stream: Unbreakable, total_steps: int) -> "Progress | None":
    """The live line, drawn when it is told to, or None on a terminal that cannot move its cursor."""
    from rich.console import Console as Terminal
    from rich.progress import BarColumn, Progress, TextColumn
    from rich.table import Column

    terminal = Terminal(file=cast(TextIO, stream), force_terminal=True)
    if terminal.is_dumb_terminal:
        return None
    text = TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True, overflow="ellipsis"))
    bar = BarColumn(bar_width=20)
    live = Progress(bar, text, console=terminal, auto_refresh=False, redirect_stdout=False, redirect_stderr=False)
    live.add_task("", total=total_steps)
    live.start()
    terminal.show_cursor(True)  # a killed run cannot give a hidden cursor back
    return live


def _results(summary: Mapping[str, object]) -> Iterator[str]:
    """What came out, one line a thing; what the summary lacks is left out."""
    if "steps" in summary:
        yield _joined("finished", *_fields(summary, ["steps", "samples", "wall_s", "goodput"]))
    metrics = summary.get("eval")
    if isinstance(metrics, Mapping):
        yield _joined("  eval    ", *_fields(metrics, list(metrics)))
    for label, key in (("weights", "weights_sha256"), ("folder", "folder")):
        if key in summary:
            yield f"  {label:<8}  {summary[key]}"


def _metrics(line: Mapping[str, object]) -> list[str]:
    return [key for key in line if key == "loss" or key not in NOT_A_METRIC]


def _watched(line: Mapping[str, object]) -> list[str]:
    """The loss, the accuracy or else the first other metric, and the learning rate."""
    metric = ["accuracy"] if "accuracy" in line else [key for key in line if key not in NOT_A_METRIC][:1]
    return ["loss", *metric, "lr"]


def _fields(line: Mapping[str, object], keys: list[str]) -> Iterator[str]:
    return (f"{key} {_value(key, line[key])}" for key in keys if key in line)


def _value(key: str, value: object) -> str:
    if isinstance(value, float):
        return f"{value:.1e}" if key == "lr" else f"{value:,.0f}" if 1e3 <= abs(value) < 1e9 else f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) else "-" if value is None else str(value)


def _rate(line: Mapping[str, object]) -> str:
    rate = line.get("samples_per_s")
    return f"{rate:,.0f} samples/s" if isinstance(rate, (int, float)) else ""


def _clock_face(duration_s: float) -> str:
    minutes, seconds = divmod(max(0, round(duration_s)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def _step(line: Mapping[str, object]) -> int:
    return cast(int, line["step"])


def _brief(value: object) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= LONGEST_DETAIL else f"{text[:LONGEST_DETAIL]}..."


def _joined(*parts: str) -> str:
    return "  ".join(part for part in parts if part)


def _shown(text: str) -> str:
    """`text` without characters that would move the cursor or change colours."""
    return "".join(character if character.isprintable() else "?" for character in text)

"""Splits a run's wall time by use (steps, data, evaluation, checkpoint, …), from its first start to its end or to now."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import pairwise
from statistics import median

from phalanx.run_folder.jsonl import Entry, number, whole
from phalanx.run_folder.lease_holders import Holder

from .history import History

_BEGINS = ("start", "resume")
_ENDS = {"finish": "finished", "preempt": "preempted", "stop": "stopped", "error": "failed"}
_SAVED = ("checkpoint", "preempt", "stop")
_SILENT_S = 60.0  # without a line for longer it counts as silence, unless lines were far apart before
_SILENT_INTERVALS = 10


class TimeUse(StrEnum):
    """In the order in which they are shown."""

    STEPS = "steps"
    DATA = "waiting for data"
    EVALUATION = "evaluation"
    CHECKPOINT = "checkpoints"
    START = "starting"
    AGAIN = "steps done again"
    SILENCE = "without a word"
    NOTHING = "nothing ran"


@dataclass(frozen=True)
class Span:
    """Times are in seconds since 1970, here and below. Of a span of steps `waited_s` were waits for data."""

    use: TimeUse
    begin: float
    end: float
    waited_s: float = 0.0

    def parts(self) -> dict[TimeUse, float]:
        """Its seconds by use."""
        waited = {TimeUse.DATA: self.waited_s} if self.waited_s else {}
        return {self.use: self.end - self.begin - self.waited_s, **waited}


@dataclass(frozen=True)
class Start:
    """One start of the run, from the beginning of its process. The first of `events` tells of itself.

    One that has not come so far, or died before, has no events; `holder` is None where its lease is gone.
    """

    begin: float
    end: float
    outcome: str
    holder: Holder | None
    events: Sequence[Entry]

    @property
    def says(self) -> Entry:
        return self.events[0] if self.events else {}

    @property
    def step(self) -> int | None:
        """That it went on from."""
        return whole(self.says.get("step", self.holder and self.holder.from_step))


def starts(history: History, now: float) -> list[Start]:
    """All starts of a run, the first one first. Where one died, it ended about when it was last seen to live."""
    passes = _starts_and_events(history)
    begins = [_begin(holder, events) for holder, events in passes]
    written = [line["time"] for line in history.lines]
    found: list[Start] = []
    for index, (holder, events) in enumerate(passes):
        begin = max(begins[index], found[-1].end) if found else begins[index]
        following = begins[index + 1] if index + 1 < len(passes) else None
        undone = _undone_until(passes[index + 1 :])
        lives = history.live is not None and (holder or history.live) == history.live and following is None
        end, outcome = _end(history, holder, events, written, following, undone)
        if lives and outcome not in _ENDS.values():
            end, outcome = now, "running" if events else "starting"
        found.append(Start(begin, max(begin, end), outcome, holder, events))
    return found


def spans(history: History, begun: Sequence[Start]) -> list[Span]:
    """The whole wall time of the run whose starts are `begun`, without gaps, in order.

    Steps that a later start did again were lost from the checkpoint on that it continued from.
    """
    found: list[Span] = []
    lines, saved = _Lines(history.lines), dict[int, float]()
    for start in begun:
        if found:
            if start.step is not None:
                _give_up(found, _kept_until(found[0].begin, saved, lines, start.step, start.begin))
            found.append(Span(TimeUse.NOTHING, found[-1].end, max(found[-1].end, start.begin)))
        found += _within(start, lines)
        saved |= {event["step"]: event["time"] for event in start.events if event["event"] in _SAVED}
    return list(_merged(found))


def seconds(found: Iterable[Span]) -> dict[TimeUse, float]:
    """The sum by use."""
    total = dict.fromkeys(TimeUse, 0.0)
    for span in found:
        for use, spent_s in span.parts().items():
            total[use] += spent_s
    return total


class _Lines:
    """The lines of metrics.jsonl, to be looked up by time and by step."""

    def __init__(self, lines: Sequence[Entry]) -> None:
        self.times = [line["time"] for line in lines]
        self.steps = [line["step"] for line in lines]
        self.waits = [_wait(line) for line in lines]
        self.usual_s = median([after - before for before, after in pairwise(self.times)] or [0.0])

    def between(self, begin: float, end: float) -> range:
        """Places of those that were written after `begin`, up to `end`."""
        return range(bisect_right(self.times, begin), bisect_right(self.times, end))

    def reached(self, step: int) -> float:
        """When the last line up to `step` was written; 0 where there is none."""
        index = bisect_right(self.steps, step)
        return self.times[index - 1] if index else 0.0


def _starts_and_events(history: History) -> list[tuple[Holder | None, list[Entry]]]:
    """Who each start was, and its events. A start that has not told of itself yet stands where its number does."""
    told: list[list[Entry]] = []
    for event in history.events:
        if event["event"] in _BEGINS:
            told.append([])
        if told:
            told[-1].append(event)
    known = [history.holders.get(whole(events[0].get("incarnation")) or 0) for events in told]
    passes: list[tuple[Holder | None, list[Entry]]] = list(zip(known, told, strict=True))
    for holder in history.holders.values():
        # One that was given back before it went on from anywhere came to nothing.
        came = holder == history.live or holder.from_step is not None
        if came and holder not in known and number(holder.since):
            later = [
                index for index, (other, _) in enumerate(passes) if other and other.incarnation > holder.incarnation
            ]
            passes.insert(later[0] if later else len(passes), (holder, []))
    return passes


def _begin(holder: Holder | None, events: Sequence[Entry]) -> float:
    if not events:
        assert holder is not None
        return number(holder.since) or 0.0
    return float(events[0]["time"] - _took_s(events[0]))


def _end(
    history: History,
    holder: Holder | None,
    events: Sequence[Entry],
    written: Sequence[float],
    following: float | None,
    undone_until: float,
) -> tuple[float, str]:
    """When a start that lives no more ended, and how; `following` is when the next one began, as far as it says.

    Until `undone_until` it wrote lines that the next one removed, to do their steps again.
    """
    if events and events[-1]["event"] in _ENDS:
        return events[-1]["time"], _ENDS[events[-1]["event"]]
    seen = history.seen.get(holder.incarnation, 0.0) if holder else 0.0
    if events:
        index = bisect_left(written, float("inf") if following is None else following)
        seen = max(seen, written[index - 1] if index else 0.0)
    seen = max(seen, undone_until)
    if following is not None:
        seen = min(seen, following)
    return max(seen, events[-1]["time"] if events else 0.0), "died" if events else "never began"


def _undone_until(later: Sequence[tuple[Holder | None, Sequence[Entry]]]) -> float:
    """Until when the start before those of `later` wrote lines that the first of them to tell of itself removed."""
    told = next((events[0] for _, events in later if events), {})
    return number(told.get("undone_until")) or 0.0


def _kept_until(first: float, saved: dict[int, float], lines: _Lines, step: int, begin: float) -> float:
    """When the state at `step` was safe that a start went on from which began at `begin`."""
    if step in saved:
        return saved[step]
    # Its event is missing, as after a kill between the two: steps up to there were done, at least.
    older = [time for at, time in saved.items() if at <= step]
    return max(first, min(lines.reached(step), begin), *older)


def _give_up(found: list[Span], kept: float) -> None:
    """Mark as AGAIN what was done after `kept`, as it was lost and done again."""
    undone: list[Span] = []
    while found and found[-1].end > kept:
        undone.append(found.pop())
    for span in reversed(undone):
        found += _cut(span, kept)


def _cut(span: Span, kept: float) -> Iterator[Span]:
    """The two parts of a span that ends after `kept`."""
    if span.use in (TimeUse.START, TimeUse.SILENCE, TimeUse.NOTHING):
        yield span
        return
    if span.begin < kept:
        share = (kept - span.begin) / (span.end - span.begin)
        yield replace(span, end=kept, waited_s=share * span.waited_s)
    yield Span(TimeUse.AGAIN, max(span.begin, kept), span.end)


def _within(start: Start, lines: _Lines) -> Iterator[Span]:
    """One start from its beginning to its end."""
    at = min(start.says.get("time", start.end), start.end)
    yield Span(TimeUse.START, start.begin, at)
    pauses = {"evaluate": TimeUse.EVALUATION, "checkpoint": TimeUse.CHECKPOINT}
    for event in start.events:
        if (use := pauses.get(event["event"])) is not None:
            end = min(event["time"], start.end)
            begin = min(max(at, end - _took_s(event)), end)
            yield from _stepping(at, begin, lines)
            yield Span(use, begin, end)
            at = end
    silent = _silent_from(at, start, lines)
    yield from _stepping(at, silent, lines)
    yield Span(TimeUse.SILENCE, silent, start.end)


def _silent_from(at: float, start: Start, lines: _Lines) -> float:
    """From when on nothing was heard of a start any more, long before its end; else its end."""
    written = lines.between(at, start.end)
    last = lines.times[written[-1]] if written else at
    longest_s = max(_SILENT_S, _SILENT_INTERVALS * lines.usual_s)
    return last if start.end - last > longest_s else start.end


def _took_s(event: Entry) -> float:
    return max(0.0, number(event.get("took_s")) or 0.0)


def _wait(line: Entry) -> float:
    """The share of the time of a line's steps that was waited for data."""
    whole_s, waited_s = number(line.get("step_time_s")), number(line.get("data_wait_s"))
    return min(1.0, max(0.0, waited_s) / whole_s) if whole_s and whole_s > 0 and waited_s else 0.0


def _stepping(begin: float, end: float, lines: _Lines) -> Iterator[Span]:
    """Steps, in one span for each line that was written of them."""
    at = begin
    for index in lines.between(begin, end):
        until = lines.times[index]
        yield Span(TimeUse.STEPS, at, until, lines.waits[index] * (until - at))
        at = until
    yield Span(TimeUse.STEPS, at, end)


def _merged(found: Iterable[Span]) -> Iterator[Span]:
    """Without empty spans, and neighbours of one use as one."""
    last: Span | None = None
    for span in found:
        if span.end <= span.begin:
            continue
        follows = last is not None and last.use is span.use and last.end == span.begin
        if last is not None and follows and not last.waited_s + span.waited_s:
            last = replace(last, end=span.end)
            continue
        if last is not None:
            yield last
        last = span
    if last is not None:
        yield last

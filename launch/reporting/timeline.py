"""What a run's wall time went into, second by second, from its first start to its end or to now."""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import zip_longest

from launch.lines import Entry
from launch.reporting.history import History

_BEGINS = ("start", "resume")
_ENDS = {"finish": "finished", "preempt": "preempted", "stop": "stopped", "error": "failed"}


class Cause(StrEnum):
    """In the order in which they are shown."""

    STEPS = "steps"
    DATA = "waiting for data"
    EVALUATION = "evaluation"
    CHECKPOINT = "checkpoints"
    START = "starting"
    AGAIN = "steps done again"
    NOTHING = "nothing ran"


@dataclass(frozen=True)
class Span:
    """Times are in seconds since 1970, here and below. Of a span of steps `waited_s` were waits for data."""

    cause: Cause
    begin: float
    end: float
    waited_s: float = 0.0

    def parts(self) -> dict[Cause, float]:
        """Its seconds by cause."""
        waited = {Cause.DATA: self.waited_s} if self.waited_s else {}
        return {self.cause: self.end - self.begin - self.waited_s, **waited}


@dataclass(frozen=True)
class Start:
    """One start of the run. `begin` is its process's; `says` is the event that it began with."""

    begin: float
    end: float
    outcome: str
    says: Entry
    events: Sequence[Entry]


def starts(history: History, now: float) -> list[Start]:
    """All starts of a run, the first one first. Where one died, it ended about when it was last seen to live."""
    found: list[list[Entry]] = []
    for event in history.events:
        if event["event"] in _BEGINS:
            found.append([])
        if found:
            found[-1].append(event)
    begins = [events[0]["time"] - events[0].get("took_s", 0.0) for events in found]
    followed = zip_longest(found, begins, begins[1:])
    return [_start(history, begin, following, events, now) for events, begin, following in followed]


def spans(history: History, now: float) -> list[Span]:
    """The whole wall time of a run, without gaps, in order.

    Steps that a later start did again were lost from the checkpoint on that it continued from.
    """
    done: list[Span] = []
    for start in starts(history, now):
        if done:
            kept = _kept_until(done, history.events, start)
            done = [piece for span in done for piece in _cut(span, kept)]
            done.append(Span(Cause.NOTHING, done[-1].end, max(done[-1].end, start.begin)))
        done += _within(start, history.lines)
    return list(_merged(done))


def seconds(found: Iterable[Span]) -> dict[Cause, float]:
    """The sum by cause."""
    total = dict.fromkeys(Cause, 0.0)
    for span in found:
        for cause, spent_s in span.parts().items():
            total[cause] += spent_s
    return total


def _start(history: History, begin: float, following: float | None, events: Sequence[Entry], now: float) -> Start:
    says, last = events[0], events[-1]
    if last["event"] in _ENDS:
        return Start(begin, last["time"], _ENDS[last["event"]], says, events)
    if following is None and history.lives:
        return Start(begin, max(begin, now), "running", says, events)
    lines = (line["time"] for line in history.lines if says["time"] <= line["time"] < (following or now))
    seen = max(last["time"], history.touched.get(says.get("incarnation", 0), 0.0), *lines)
    return Start(begin, seen if following is None else min(seen, following), "died", says, events)


def _kept_until(done: Sequence[Span], events: Sequence[Entry], start: Start) -> float:
    """When the checkpoint was complete that `start` continued from; the beginning of the run where there was none."""
    step = start.says["step"]
    saved = [e["time"] for e in events if e["event"] == "checkpoint" and e["step"] == step and e["time"] < start.begin]
    return max(saved) if saved else done[0].begin


def _cut(span: Span, kept: float) -> Iterator[Span]:
    """The pieces of a span, of which what comes after `kept` was done in vain."""
    if span.cause in (Cause.START, Cause.NOTHING) or span.end <= kept:
        yield span
    else:
        if span.begin < kept:
            share = (kept - span.begin) / (span.end - span.begin)
            yield replace(span, end=kept, waited_s=share * span.waited_s)
        yield Span(Cause.AGAIN, max(span.begin, kept), span.end)


def _within(start: Start, lines: Sequence[Entry]) -> Iterator[Span]:
    """One start from its beginning to its end."""
    at = min(start.says["time"], start.end)
    yield Span(Cause.START, start.begin, at)
    pauses = {"evaluate": Cause.EVALUATION, "checkpoint": Cause.CHECKPOINT}
    waits = [(until, share) for until, share in _waits(lines) if at < until <= start.end]
    for event in start.events:
        if (cause := pauses.get(event["event"])) is not None:
            begin = min(max(at, event["time"] - event.get("took_s", 0.0)), event["time"])
            yield from _stepping(at, begin, waits)
            yield Span(cause, begin, event["time"])
            at = event["time"]
    yield from _stepping(at, start.end, waits)


def _waits(lines: Sequence[Entry]) -> Iterator[tuple[float, float]]:
    """When each line was written, and the share of the time of its steps that was waited for data."""
    for line in lines:
        whole, waited = line.get("step_time_s"), line.get("data_wait_s")
        if isinstance(whole, float) and isinstance(waited, float) and whole > 0:
            yield line["time"], min(1.0, waited / whole)


def _stepping(begin: float, end: float, waits: Sequence[tuple[float, float]]) -> Iterator[Span]:
    """Steps, in one span for each line that was written of them."""
    at = begin
    for until, share in waits[bisect_right(waits, (begin, 1.0)) : bisect_right(waits, (end, 1.0))]:
        yield Span(Cause.STEPS, at, until, share * (until - at))
        at = until
    yield Span(Cause.STEPS, at, end)


def _merged(found: Iterable[Span]) -> Iterator[Span]:
    """Without empty spans, and neighbours of one cause as one."""
    last: Span | None = None
    for span in found:
        if span.end <= span.begin:
            continue
        follows = last is not None and last.cause is span.cause and last.end == span.begin
        if last is not None and follows and not last.waited_s + span.waited_s:
            last = replace(last, end=span.end)
            continue
        if last is not None:
            yield last
        last = span
    if last is not None:
        yield last

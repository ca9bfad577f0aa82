"""Format metrics lines, events and summaries for people: on the console, in rank 0's log and in a report."""

import math
from collections.abc import Iterator, Mapping
from typing import cast

LONGEST_DETAIL = 160  # characters; a traceback belongs in events.jsonl and in the rank's log
NOT_A_METRIC = frozenset(
    {"step", "split", "time", "epoch", "loss", "lr", "grad_norm", "samples_per_s", "step_time_s", "data_wait_s"}
    | {"tokens_per_s", "mfu", "memory_gib", "page_faults", "skipped"}
)
UNSAID = frozenset({"error", "evaluate", "finish"})  # printed by the failing rank, the metrics line and the summary
_SPARED = ("epoch", "lr", "samples_per_s")  # dropped on a narrow terminal, in this order
_BESIDE = frozenset({"time", "event", "step", "steps", "incarnation", "undone_until", "init_names"})


def of_line(line: Mapping[str, object], total_steps: int, to_go: str = "", columns: float = math.inf) -> str:
    """A line of metrics.jsonl and the remaining time `to_go`; a training line is cut to `columns` characters."""
    if line["split"] != "train":
        return joined(f"{line['split']} at {at(line, total_steps)}", *_fields(line, _metrics(line)))
    watched = dict(zip(_watched(line), _fields(line, _watched(line)), strict=True))
    told = {"epoch": _epoch(line), **watched, "samples_per_s": _rate(line)}
    spared = iter((*_SPARED, *reversed(watched)))
    while len(text := joined(at(line, total_steps), *told.values(), to_go)) > columns and (name := next(spared, None)):
        told.pop(name, None)
    return text


def of_event(event: Mapping[str, object], total_steps: int) -> str:
    """An event of events.jsonl; empty if it is printed elsewhere."""
    if event["event"] in UNSAID:
        return ""
    return joined(f"{event['event']} at {at(event, total_steps)}", *details(event, LONGEST_DETAIL))


def details(event: Mapping[str, object], longest: int | None = None) -> Iterator[str]:
    """The other fields of an event than name, time and step, each cut to `longest` characters."""
    return (_detail(key, value, longest) for key, value in event.items() if key not in _BESIDE)


def of_summary(summary: Mapping[str, object]) -> Iterator[str]:
    """The lines of a summary; a field that is missing has none."""
    if "steps" in summary:
        wall = [f"{duration(cast(float, summary['wall_s']))} in all"] if "wall_s" in summary else []
        yield joined("finished", *_fields(summary, ["steps", "samples"]), *wall, *_fields(summary, ["goodput"]))
    if summary.get("ended_by") not in (None, "steps"):
        yield f"  ended by  {summary['ended_by']}"
    best = summary.get("best")
    for split, metrics in _evaluated(summary):
        yield joined(f"  {split:<8}", *_fields(metrics, list(metrics)))
    if isinstance(best, Mapping) and best.get("value") is not None:
        yield joined("  best    ", *_fields(best, ["value", "step"]))
    if summary.get("skipped"):
        yield f"  skipped   {_skipped(summary['skipped'], summary.get('skipped_steps'))}"
    for label, key in (("weights", "weights_sha256"), ("folder", "folder")):
        if key in summary:
            yield f"  {label:<8}  {summary[key]}"


def _evaluated(summary: Mapping[str, object]) -> Iterator[tuple[str, Mapping[str, object]]]:
    """The metrics of each evaluation set by split; where "eval" holds metrics by split, those are of named sets."""
    found, test = summary.get("eval"), summary.get("test")
    sets = found if isinstance(found, Mapping) else {}
    if not all(isinstance(metrics, Mapping) for metrics in sets.values()):
        sets = {"eval": sets}
    yield from ((split, metrics) for split, metrics in {**sets, "test": test}.items() if isinstance(metrics, Mapping))


def _skipped(count: object, steps: object) -> str:
    named = ", ".join(map(str, steps[:8])) if isinstance(steps, list) else ""
    more = ", …" if isinstance(steps, list) and len(steps) > 8 else ""
    return f"{count} steps that were not finite ({named}{more}): the run's events have their samples"


def at(line: Mapping[str, object], total_steps: int) -> str:
    return f"step {line['step']}/{total_steps}"


def duration(seconds: float) -> str:
    """Such as 80 ms, 5.2 s, 12:05 min, 3:20:00 h."""
    if seconds < 0.9995:
        return f"{1e3 * seconds:.0f} ms"
    if seconds < 99.95:
        return f"{seconds:.1f} s"
    clock = clock_face(seconds)
    return f"{clock} {'h' if clock.count(':') == 2 else 'min'}"


def clock_face(seconds: float) -> str:
    minutes, rest = divmod(max(0, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def joined(*parts: str) -> str:
    return "  ".join(part for part in parts if part)


def _detail(key: str, value: object, longest: int | None) -> str:
    if key.endswith("_s") and isinstance(value, (int, float)) and math.isfinite(value):
        return f"{key.removesuffix('_s').replace('_', ' ')} {duration(value)}"
    text = " ".join(_words(key, value).split())
    if longest is not None and len(text) > longest:
        text = f"{text[:longest].rstrip('0123456789')}..."  # half a number is another
    return f"{key.replace('_', ' ')} {text}"


def _words(key: str, value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_words(str(name), item)}" for name, item in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(str(item) if isinstance(item, int) else _words(key, item) for item in value)
    return _value(key, value)


def _metrics(line: Mapping[str, object]) -> list[str]:
    return [key for key in line if key == "loss" or key not in NOT_A_METRIC]


def _watched(line: Mapping[str, object]) -> list[str]:
    """The loss, the accuracy or else the first other metric, and the learning rate."""
    metric = ["accuracy"] if "accuracy" in line else [key for key in line if key not in NOT_A_METRIC][:1]
    return [key for key in ("loss", *metric, "lr") if key in line]


def _fields(line: Mapping[str, object], keys: list[str]) -> Iterator[str]:
    return (f"{key} {_value(key, line[key])}" for key in keys if key in line)


def _value(key: str, value: object) -> str:
    if isinstance(value, float):
        return f"{value:.1e}" if key == "lr" else f"{value:,.0f}" if 1e3 <= abs(value) < 1e9 else f"{value:.3g}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return "-" if value is None else str(value)


def _epoch(line: Mapping[str, object]) -> str:
    epoch = line.get("epoch")
    return f"epoch {epoch:.3g}" if isinstance(epoch, (int, float)) else ""


def _rate(line: Mapping[str, object]) -> str:
    rate = line.get("samples_per_s")
    return f"{rate:,.0f} samples/s" if isinstance(rate, (int, float)) else ""

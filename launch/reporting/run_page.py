"""The report page of one run or several: prepares what templates/page.html shows."""

import json
import shlex
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from phalanx.common.event_text import details
from phalanx.run_folder import names
from phalanx.run_folder.jsonl import Entry, newest_evaluations, number
from phalanx.run_folder.names import SHOWN

from ..common.text import duration_text
from ..state.run import run_state
from . import charts, timeline
from .history import History
from .render import rendered
from .shown_files import shown_files

_EVENTS = 200  # rows; where there are more, those that say how starts began and ended come first, routine last
_TURNS = {"start", "resume", "error", "preempt", "stop", "finish"}
_ROUTINE = {"checkpoint", "evaluate"}
_WHERE = ("host", "platform", "cpu", "cores", "memory_gib", "python", "torch", "cuda", "cudnn", "nccl", "driver")


def run_page(histories: Sequence[History], now: float) -> str:
    """The whole HTML text."""
    names, metrics = _names(histories), _metrics(histories)
    return rendered(
        "page.html",
        title=names[0] if len(names) == 1 else f"{len(names)} runs",
        written=_clock(now),
        metrics=metrics,
        runs=[
            _run(history, name, charts.RUN_COLOURS[index % len(charts.RUN_COLOURS)], metrics, now)
            for index, (history, name) in enumerate(zip(histories, names, strict=True))
        ],
        curves=charts.curves({name: history.lines for name, history in zip(names, histories, strict=True)}),
        shown=shown_files({name: history.run for name, history in zip(names, histories, strict=True)}),
        folder=SHOWN,
        uses={use.value: colour for use, colour in charts.COLOURS.items()},
        differences=None if len(histories) == 1 else differences([history.config for history in histories]),
    )


def differences(configs: Sequence[str]) -> dict[str, list[str]]:
    """The keys whose values are not the same in all of the resolved.yaml, each with its value in every one."""
    flat = [_flat(text) for text in configs]
    keys = sorted({key for config in flat for key in config})
    found = {key: [config.get(key, "-") for config in flat] for key in keys}
    return {key: values for key, values in found.items() if len(set(values)) > 1}


def _names(histories: Sequence[History]) -> list[str]:
    """Short where that is enough to tell the runs apart."""
    short = [history.run.resolve().name for history in histories]
    return short if len(set(short)) == len(short) else [str(history.run) for history in histories]


def _metrics(histories: Sequence[History]) -> list[str]:
    """The names of what was evaluated, the loss first."""
    found = {name for history in histories for name in _newest(history)}
    return sorted(found, key=lambda name: (name != "loss", name))


def _newest(history: History) -> Mapping[str, Any]:
    return newest_evaluations(history.lines)


def _run(history: History, name: str, colour: str, metrics: Iterable[str], now: float) -> dict[str, Any]:
    state, newest = run_state(history.run, now), _newest(history)
    begun = timeline.starts(history, now)
    spans = timeline.spans(history, begun)
    told, left_out = _told(history.events)
    return {
        "name": name,
        "colour": colour,
        "state": state.ended,
        "steps": f"{_or(state.step)}/{_or(state.steps)}",
        "metrics": {metric: _number(newest.get(metric)) for metric in metrics},
        "wall": duration_text(spans[-1].end - spans[0].begin) if spans else "-",
        "goodput": "-" if state.goodput is None else f"{state.goodput:.0%}",
        "weights": str((history.summary or {}).get("weights_sha256") or "-")[:16],
        "strip": charts.time_strip(spans, history.events) if spans else None,
        "spent": _spent(spans),
        "events": [_event(event) for event in told],
        "left_out": ", ".join(f"{count} {name}" for name, count in left_out.most_common()),
        "config": history.config,
        "starts": [_start(each) for each in begun],
        "environment": _environment(history.environment),
    }


def _spent(spans: Sequence[timeline.Span]) -> dict[str, str]:
    seconds = timeline.seconds(spans)
    whole_s = sum(seconds.values()) or 1.0
    return {
        use.value: f"{duration_text(spent_s) if spent_s >= 90 else f'{spent_s:.1f} s'} ({spent_s / whole_s:.0%})"
        for use, spent_s in seconds.items()
    }


def _told(events: Sequence[Entry]) -> tuple[Sequence[Entry], Counter[str]]:
    """What there is room for, and how many of each name there are beside it."""

    def weight(index: int) -> tuple[bool, bool, int]:
        name = events[index]["event"]
        return name in _TURNS, name not in _ROUTINE, index

    kept = sorted(sorted(range(len(events)), key=weight)[-_EVENTS:])
    told = [events[index] for index in kept]
    return told, Counter(event["event"] for event in events) - Counter(event["event"] for event in told)


def _event(event: Entry) -> dict[str, Any]:
    told = details({key: value for key, value in event.items() if key != "folder"})  # where the page most often lies
    return {
        "time": _clock(event["time"]),
        "step": event["step"],
        "name": event["event"],
        "facts": "; ".join(told),
    }


def _start(start: timeline.Start) -> dict[str, Any]:
    says, holder = start.says, start.holder
    hosts = says.get("hosts", {holder.host: "-"} if holder else None)
    return {
        "began": _clock(start.begin),
        "step": _or(start.step),
        "ranks": _or(says.get("ranks")),
        "hosts": ", ".join(f"{host} ({ranks})" for host, ranks in hosts.items()) if isinstance(hosts, dict) else "-",
        "device": _or(says.get("device")),
        "precision": _or(says.get("precision")),
        "job": _or(holder.job if holder else None),
        "lasted": duration_text(start.end - start.begin),
        "outcome": start.outcome,
    }


def _environment(found: Mapping[str, Any]) -> dict[str, str]:
    shown = {key.replace("_", " "): str(found[key]) for key in _WHERE if found.get(key) is not None}
    if isinstance(found.get("command"), list):
        shown["command"] = shlex.join(map(str, found["command"]))
    if isinstance(found.get("gpus"), list):
        shown["GPUs"] = ", ".join(str(gpu.get("name")) for gpu in found["gpus"] if isinstance(gpu, dict)) or "none"
    if isinstance(git := found.get("git"), dict):
        dirty = git.get("dirty")
        state = (
            ", state unknown"
            if dirty is None
            else f", with changes ({names.ENVIRONMENT} has the diff)"
            if dirty
            else ""
        )
        shown["git commit"] = f"{git.get('commit')}{state}"
    return shown


def _flat(text: str) -> dict[str, str]:
    """Dotted keys and their values of a YAML text; empty where it is none."""
    import yaml  # here, for `phalanx status` has no use for it

    found: dict[str, str] = {}

    def walk(value: Any, at: tuple[str, ...]) -> None:
        if isinstance(value, dict) and value:
            for key, inner in value.items():
                walk(inner, (*at, str(key)))
        elif at:
            found[".".join(at)] = _plain(value)

    try:
        walk(yaml.safe_load(text), ())
    except yaml.YAMLError:
        return {}
    return found


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _number(value: object) -> str:
    found = number(value)
    return "-" if found is None else f"{found:.4g}"


def _or(value: object) -> str:
    return "-" if value is None else str(value)


def _clock(time_s: float) -> str:
    return datetime.fromtimestamp(time_s, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")

"""The charts of a report, as HTML for plotly: curves of metrics, and the wall time by use."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import groupby
from typing import Any

from phalanx.run_folder.jsonl import Entry, number

from .timeline import Span, TimeUse

# Told apart by people who see few colours: Okabe and Ito, "Color Universal Design" (2008).
COLOURS = {
    TimeUse.STEPS: "#009E73",
    TimeUse.DATA: "#F0E442",
    TimeUse.EVALUATION: "#56B4E9",
    TimeUse.CHECKPOINT: "#0072B2",
    TimeUse.START: "#999999",
    TimeUse.AGAIN: "#D55E00",
    TimeUse.SILENCE: "#CC79A7",
    TimeUse.NOTHING: "#E8E8E8",
}
RUN_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7F3C8D", "#444444")
_MARKED = {"start", "resume", "preempt", "stop", "skip", "rollback", "hang", "error", "finish"}
_POINTS = 1000  # a curve of more is drawn as the mean and the extremes of half as many stretches
_BINS = 600  # of the wall time, in each of which the uses have their shares
_NOT_CURVES = {"step", "split", "time"}
_FIRST = ("loss", "accuracy")
_UNITS = {
    "lr": "learning rate",
    "samples_per_s": "samples/s",
    "tokens_per_s": "tokens/s",
    "step_time_s": "step time, s",
    "data_wait_s": "wait for data a step, s",
    "memory_gib": "GPU memory, GiB",
    "page_faults": "page faults a step",
}
_LAYOUT = {
    "template": None,
    "margin": {"l": 56, "r": 12, "t": 12, "b": 40},
    "showlegend": False,
    "hovermode": "closest",
    "paper_bgcolor": "rgba(0,0,0,0)",
    "plot_bgcolor": "rgba(0,0,0,0)",
    "font": {"family": "system-ui, sans-serif", "size": 12, "color": "#333"},
}
GRID = {"gridcolor": "#eee", "linecolor": "#bbb", "zeroline": False, "showline": True}


_Range = tuple[int, float, float]  # a step, the lowest and the highest number around it


@dataclass(frozen=True)
class Chart:
    title: str
    html: str


def curves(lines: Mapping[str, Sequence[Entry]]) -> list[Chart]:
    """A chart for every number that the runs' lines hold, over steps; `lines` are those of metrics.jsonl by run."""
    names = {
        name
        for entries in lines.values()
        for entry in entries
        for name, value in entry.items()
        if name not in _NOT_CURVES and number(value) is not None
    }
    known = [*_FIRST, *sorted(names - {*_FIRST, *_UNITS}), *_UNITS]
    return [Chart(_UNITS.get(name, name), _curve(name, lines)) for name in known if name in names]


def time_strip(found: Sequence[Span], events: Sequence[Entry]) -> str:
    """The wall time from left to right in the colours of its uses, the run's events above it."""
    first, last = found[0].begin, found[-1].end
    size, unit = _unit(last - first)
    width = (last - first) / _BINS
    middles = [(index + 0.5) * width / size for index in range(_BINS)]
    bars = [
        {
            "type": "bar",
            "name": use.value,
            "x": middles,
            "y": shares,
            "width": width / size,
            "marker": {"color": COLOURS[use], "line": {"width": 0}},
            "hovertemplate": f"{use.value} %{{y:.0%}}<extra>%{{x:.3g}} {unit}</extra>",
        }
        for use, shares in _shares(found, width).items()
    ]
    marked = [event for event in events if event["event"] in _MARKED and first <= event["time"] <= last]
    marks = {
        "type": "scatter",
        "mode": "markers",
        "x": [(event["time"] - first) / size for event in marked],
        "y": [1.15] * len(marked),
        "cliponaxis": False,
        "marker": {"symbol": "triangle-down", "size": 11, "color": "#777"},
        "text": [f"{escape(str(event['event']))} at step {event['step']}" for event in marked],
        "hovertemplate": "%{text}<extra>%{x:.3g} " + unit + "</extra>",
    }
    return chart_html(
        [*bars, marks],
        {
            "barmode": "stack",
            "bargap": 0,
            "margin": {"l": 12, "r": 12, "t": 4, "b": 36},
            "xaxis": {**GRID, "title": {"text": unit}, "range": [0, (last - first) / size]},
            "yaxis": {"visible": False, "range": [0, 1.3], "fixedrange": True},
        },
    )


def _curve(name: str, lines: Mapping[str, Sequence[Entry]]) -> str:
    traces: list[dict[str, Any]] = []
    heights: set[float | None] = set()
    for index, (run, entries) in enumerate(lines.items()):
        colour = RUN_COLOURS[index % len(RUN_COLOURS)]
        for split in sorted({str(entry.get("split")) for entry in entries}, reverse=True):  # train first
            found = [(e["step"], number(e[name])) for e in entries if e.get("split") == split and name in e]
            heights |= {y for _, y in found}
            points, ranges = _downsampled(found)
            traces += [_min_max_band(ranges, colour)] if ranges else []
            trains = split == "train"
            traces.append(
                {
                    "type": "scatter",
                    "mode": "lines+markers",
                    "name": escape(f"{run}, {split}"),
                    "x": [x for x, _ in points],
                    "y": [y for _, y in points],
                    "line": {"color": colour, "width": 1.2 if trains else 2, "dash": "solid" if trains else "dot"},
                    "marker": {"color": colour, "size": _sizes([y for _, y in points]) if trains else 5},
                    "opacity": 0.7 if trains else 1.0,
                    "hovertemplate": "%{y:.4g}<extra>step %{x}<br>%{fullData.name}</extra>",
                }
            )
    return chart_html(
        traces, {"xaxis": {**GRID, "title": {"text": "step"}}, "yaxis": {**GRID, **_axis_range(heights - {None})}}
    )


def _axis_range(heights: Collection[float | None]) -> dict[str, Any]:
    """The range of an axis on which all is of one height: plotly's own goes from 1 below it to 1 above it."""
    (height, *others) = heights or (None,)
    return {} if others or not height else {"range": sorted((0.0, 2 * height))}


def _min_max_band(ranges: Sequence[_Range | None], colour: str) -> dict[str, Any]:
    """Between the lowest and the highest, pale, around the line of the means; a shape for what lies between two gaps."""
    x: list[float | None] = []
    y: list[float | None] = []
    for is_gap, within in groupby(ranges, lambda found: found is None):
        if not is_gap:
            shape = [found for found in within if found is not None]
            x += [*(step for step, _, _ in shape), *(step for step, _, _ in reversed(shape)), None]
            y += [*(low for _, low, _ in shape), *(high for _, _, high in reversed(shape)), None]
    return {
        "type": "scatter",
        "mode": "lines",
        "x": x,
        "y": y,
        "fill": "toself",
        "fillcolor": colour,
        "line": {"width": 0.5, "color": colour},
        "opacity": 0.25,
        "hoverinfo": "skip",
    }


def _sizes(numbers: Sequence[float | None]) -> list[int]:
    """Of markers: a point without a neighbour on either side would be no line, and not be seen."""
    padded = [None, *numbers, None]
    return [5 if before is None and after is None else 0 for before, after in zip(padded, padded[2:], strict=False)]


def _downsampled(
    points: Sequence[tuple[int, float | None]],
) -> tuple[Sequence[tuple[int, float | None]], Sequence[_Range | None]]:
    """The points, of many the means of stretches; then also the lowest and the highest of each, so that no spike is lost.

    Gaps stay gaps, and the first and the last number stay what they are.
    """
    if len(points) <= _POINTS:
        return points, ()
    size = math.ceil(2 * len(points) / _POINTS)
    means: list[tuple[int, float | None]] = []
    ranges: list[_Range | None] = []
    for begin in range(0, len(points), size):
        stretch = points[begin : begin + size]
        numbers = [y for _, y in stretch if y is not None]
        step = stretch[len(stretch) // 2][0]
        means.append((step, _rounded(math.fsum(numbers) / len(numbers)) if numbers else None))
        ranges.append((step, _rounded(min(numbers)), _rounded(max(numbers))) if numbers else None)
    return [points[0], *means, points[-1]], ranges


def _rounded(value: float) -> float:
    """To more digits than a chart can show."""
    return float(f"{value:.6g}")


def _shares(found: Sequence[Span], width: float) -> dict[TimeUse, list[float]]:
    """For each use its share of every bin of `width` seconds."""
    first = found[0].begin
    shares = {use: [0.0] * _BINS for use in TimeUse}
    for span in found:
        at, end = (span.begin - first) / width, (span.end - first) / width
        parts = {use: part_s / (span.end - span.begin) for use, part_s in span.parts().items()}
        for index in range(int(at), min(_BINS, math.ceil(end))):
            within = min(end, index + 1) - max(at, index)
            for use, part in parts.items():
                shares[use][index] += part * within
    return {use: parts for use, parts in shares.items() if any(parts)}


def _unit(span_s: float) -> tuple[float, str]:
    for size, unit in ((86400.0, "days"), (3600.0, "hours"), (60.0, "minutes")):
        if span_s >= 3 * size:
            return size, unit
    return 1.0, "seconds"


def chart_html(traces: Sequence[Mapping[str, Any]], layout: Mapping[str, Any]) -> str:
    """The HTML of one chart, of plotly's traces."""
    from plotly.graph_objects import Figure  # here, for `phalanx status` has no use for it

    return figure_html(Figure(data=list(traces), layout={**_LAYOUT, **layout}))


def figure_html(figure: Any) -> str:
    """The same of a figure of plotly's."""
    html: str = figure.to_html(
        full_html=False, include_plotlyjs=False, config={"displayModeBar": False, "responsive": True}
    )
    return html


def plotly_script() -> str:
    """plotly's own, 5 MB of it, so that the page needs no network."""
    from plotly.offline import get_plotlyjs

    text: str = get_plotlyjs()
    return text

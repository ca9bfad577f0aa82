"""A sweep on a page that needs no network: what is best, what it depends on, and how the trials came there."""

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any

from launch.lines import number, read_lines
from launch.reporting.charts import RUN_COLOURS, drawn, html_of
from launch.reporting.render import rendered
from launch.sweeping import results
from launch.sweeping.results import Row
from train.config import Mode
from train.files import write_whole

if TYPE_CHECKING:
    from launch.sweeping.conductor import Conductor
    from launch.sweeping.search import Search

PAGE = "report.html"
_ROWS = 200
_FEW = 4  # trials; fewer say nothing about what the score depends on


def write(conductor: "Conductor", found: Sequence[Row], state: str) -> None:
    """Write the page into the sweep's folder."""
    plan = conductor.plan
    first = results.best(found, plan.config.mode)
    order = sorted(found, key=lambda row: (row.state != "complete", results.merit(row.value, plan.config.mode)))
    text = rendered(
        "sweeping/page.html",
        title=plan.folder.name,
        state=state,
        metric=plan.metric,
        keys=[dimension.key for dimension in plan.space.dimensions],
        best=first,
        command=None if first is None else results.command([*plan.space.fixed, *first.words], plan.config.ranks),
        noise=_noise(found, first, plan.config.mode),
        importances=_importances(conductor.search),
        charts=_charts(conductor.search, plan.metric),
        curves=_curves(conductor, found),
        rows=[_row(row) for row in order[:_ROWS]],
        left_out=max(0, len(order) - _ROWS),
        trials=conductor.search.size,
        rank_hours=f"{sum(row.rank_s for row in found) / 3600:.3g}",
        energy=_energy(found),
    )
    write_whole(plan.folder / PAGE, text)


def _energy(found: Sequence[Row]) -> str:
    known = [row.energy_j for row in found if row.energy_j is not None]
    if not known:
        return "energy was not measured"
    rest = "" if len(known) == len(found) else f" by the {len(known)} trials where it was measured"
    return f"{sum(known) / 3.6e6:.3g} kWh on GPUs{rest}"


def _noise(found: Sequence[Row], first: Row | None, mode: Mode) -> str:
    """Whether the winner may have won by luck."""
    second = results.best([row for row in found if first is not None and row.words != first.words], mode)
    if first is None or second is None or first.value is None or second.value is None:
        return ""
    if len(first.by_seed) < 2 or len(second.by_seed) < 2:
        return "Each point was trained once, so nothing tells how much of a difference is luck: sweep.seeds=3 would."
    spread = math.hypot(*(stdev(row.by_seed) / math.sqrt(len(row.by_seed)) for row in (first, second)))
    gap = abs(fmean(first.by_seed) - fmean(second.by_seed))
    told = f"It is {gap:.3g} ahead of trial {second.trial}, and the standard error of that difference is {spread:.3g}"
    return f"{told}: the winner is {'inside the noise' if gap < 2 * spread else 'outside the noise'}."


def _importances(search: "Search") -> Mapping[str, str]:
    """How much of the score's variance each dimension explains (fANOVA, Hutter et al., 2014)."""
    from optuna.importance import FanovaImportanceEvaluator, get_param_importances

    if len(search.completed()) < _FEW:
        return {}
    with suppress(ValueError, RuntimeError):  # as where all scores are alike
        shares = get_param_importances(search.study, evaluator=FanovaImportanceEvaluator(seed=0))
        return {name: f"{share:.0%}" for name, share in shares.items()}
    return {}


def _charts(search: "Search", metric: str) -> list[str]:
    """Each dimension against the score, and all of them at once."""
    from optuna import visualization

    done = search.completed()
    if len(done) < 2:
        return []
    figures = [visualization.plot_slice(search.study, target_name=metric)]
    if len(done[0].params) > 1:
        figures.append(visualization.plot_parallel_coordinate(search.study, target_name=metric))
    return [html_of(figure.update_layout(title=None, template="none")) for figure in figures]


def _curves(conductor: "Conductor", found: Sequence[Row]) -> str:
    """The evaluations of every trial; of those that ended early pale and with a cross at their end."""
    traces: list[dict[str, Any]] = []
    for row in found:
        lines = [line for line in read_lines(conductor.plan.folder / row.run) if line["split"] == "eval"]
        points = [(line["step"], number(line.get(conductor.plan.metric))) for line in lines]
        if not points:
            continue
        early = row.state != "complete"
        colour = "#999999" if early else RUN_COLOURS[row.trial % len(RUN_COLOURS)]
        traces.append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                "name": f"trial {row.trial}, {row.state}",
                "x": [step for step, _ in points],
                "y": [value for _, value in points],
                "line": {"color": colour, "width": 1, "dash": "dot" if early else "solid"},
                "marker": {
                    "color": colour,
                    "symbol": "x" if early else "circle",
                    "size": [0] * (len(points) - 1) + [7],
                },
                "hovertemplate": "%{y:.4g}<extra>step %{x}<br>%{fullData.name}</extra>",
            }
        )
    return drawn(traces, {"xaxis": {"title": {"text": "step"}}}) if traces else ""


def _row(row: Row) -> dict[str, Any]:
    return {
        **vars(row),
        "value": "-" if row.value is None else f"{row.value:.5g}",
        "spread": f"{stdev(row.by_seed):.2g}" if len(row.by_seed) > 1 else "",
        "chosen": row.chosen,
        "steps": row.steps or "-",
        "error": row.error or "",
    }

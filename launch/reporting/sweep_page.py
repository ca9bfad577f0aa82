"""The HTML report of a sweep: best trial, importance of each dimension, learning curves, all trials."""

import math
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any

from phalanx.config.metric_direction import name_in
from phalanx.config.schema import Mode
from phalanx.run_folder.jsonl import number, read_lines

from ..search.optuna_study import direction, distribution
from ..sweep import results
from ..sweep.results import SweepResults, TrialRow
from .charts import GRID, RUN_COLOURS, chart_html, figure_html
from .code_edits import differences
from .render import rendered

if TYPE_CHECKING:
    from optuna.study import Study

_ROWS = 200
_DEPTH = 8  # of fANOVA's trees, whose cost grows with the square of their leaves; deeper ones explain noise
_FEW = 4  # trials; fewer say nothing about what the score depends on


def sweep_page(found: SweepResults) -> str:
    """The whole page, as HTML."""
    first = found.best
    order = sorted(found.rows, key=lambda row: (row.state != "complete", results.sort_key(row.value, found.mode)))
    study = _study(found, ("complete",))
    shown = _shown(order)
    return rendered(
        "sweep_page.html",
        title=found.folder.resolve().name,
        state=found.state,
        metric=found.metric,
        keys=[dimension.key for dimension in found.dimensions],
        best=first,
        command=None if first is None else results.command(found.words(first), found.ranks),
        noise=_noise(found.rows, first, found.mode),
        edited=differences(found.folder, found.rows),
        importances=_importances(study),
        charts=_charts(study, found),
        curves=_curves(found),
        rows=[_row(row) for row in shown],
        left_out=len(order) - len(shown),
        trials=found.trials,
        rank_hours=f"{sum(row.rank_s for row in found.rows) / 3600:.3g}",
        energy=_energy(found.rows),
    )


def _shown(order: Sequence[TrialRow]) -> list[TrialRow]:
    """The first ones, and of the others those that failed, so that nobody looks for them elsewhere."""
    return [*order[:_ROWS], *[row for row in order[_ROWS:] if row.state == "failed"][:_ROWS]]


def _study(found: SweepResults, states: Collection[str]) -> "Study":
    """The trials in these states that have a value, as Optuna draws them."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    distributions = {dimension.key: distribution(dimension) for dimension in found.dimensions}
    study = optuna.create_study(direction=direction(found.mode))
    for row in found.rows:
        if row.state in states and row.value is not None:
            chosen = zip(found.dimensions, row.chosen, strict=True)
            point = {dimension.key: dimension.read(text) for dimension, text in chosen}
            study.add_trial(optuna.create_trial(params=point, distributions=distributions, value=row.value))
    return study


def _energy(found: Sequence[TrialRow]) -> str:
    known = [row.energy_j for row in found if row.energy_j is not None]
    if not known:
        return "energy was not measured"
    rest = "" if len(known) == len(found) else f" by the {len(known)} trials where it was measured"
    return f"{sum(known) / 3.6e6:.3g} kWh on GPUs{rest}"


def _noise(found: Sequence[TrialRow], first: TrialRow | None, mode: Mode) -> str:
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


def _importances(study: "Study") -> Mapping[str, str]:
    """How much of the score's variance each dimension explains (fANOVA, Hutter et al., 2014), where there are several."""
    trials = study.get_trials(deepcopy=False)
    if len(trials) < _FEW or len(trials[0].distributions) < 2:
        return {}
    from optuna.importance import FanovaImportanceEvaluator, get_param_importances  # scikit-learn, a second long

    with suppress(ValueError, RuntimeError):  # as where all scores are alike
        shares = get_param_importances(study, evaluator=FanovaImportanceEvaluator(max_depth=_DEPTH, seed=0))
        return {name: f"{share:.0%}" for name, share in shares.items()}
    return {}


def _charts(study: "Study", found: SweepResults) -> list[str]:
    """Each dimension against the score, and all of them at once; trials that were pruned with their last value."""
    from optuna import visualization

    everyone = _study(found, ("complete", "pruned"))
    if len(everyone.get_trials(deepcopy=False)) < 2:
        return []
    complete = any(row.state == "complete" and row.value is not None for row in found.rows)
    slices = visualization.plot_slice(study if complete else everyone, target_name=found.metric)
    figures = [_with_pruned(slices, found) if complete else slices]
    if len(found.dimensions) > 1:
        figures.append(visualization.plot_parallel_coordinate(everyone, target_name=found.metric))
    return [figure_html(figure.update_layout(title=None, template="none")) for figure in figures]


def _with_pruned(slices: Any, found: SweepResults) -> Any:
    """Optuna's chart of complete trials, with crosses for those that were pruned."""
    keys = sorted(dimension.key for dimension in found.dimensions)  # as Optuna orders them
    pruned = [row for row in found.rows if row.state == "pruned" and row.value is not None]
    for column, key in enumerate(keys, 1):
        index, dimension = next((n, each) for n, each in enumerate(found.dimensions) if each.key == key)
        trace = {
            "type": "scatter",
            "mode": "markers",
            "name": "pruned",
            "x": [dimension.read(row.chosen[index]) for row in pruned],
            "y": [row.value for row in pruned],
            "marker": {"color": "#999999", "symbol": "x", "size": 7},
            "text": [f"trial {row.trial}, pruned at step {row.step}" for row in pruned],
            "hovertemplate": "%{text}<extra>%{x}: %{y:.4g}</extra>",
            "showlegend": False,
        }
        slices.add_trace(trace, **({"row": 1, "col": column} if len(keys) > 1 else {}))
    return slices


def _curves(found: SweepResults) -> str:
    """The evaluations of every trial; of those that ended early pale and with a cross at their end."""
    traces: list[dict[str, Any]] = []
    for row in found.rows:
        lines = [(line, name_in(found.metric, line["split"])) for line in read_lines(found.folder / row.run)]
        points = [(line["step"], number(line.get(name))) for line, name in lines if name is not None]
        if not points:
            continue
        early = row.state != "complete"
        colour = "#999999" if early else RUN_COLOURS[row.trial % len(RUN_COLOURS)]
        traces.append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                "name": f"trial {row.trial}" if row.state == "complete" else f"trial {row.trial}, {row.state}",
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
    axes = {"xaxis": {**GRID, "title": {"text": "step"}}, "yaxis": GRID}
    return chart_html(traces, {**axes, "showlegend": True}) if traces else ""


def _row(row: TrialRow) -> dict[str, Any]:
    return {
        **vars(row),
        "value": "-" if row.value is None else f"{row.value:.5g}",
        "spread": f"{stdev(row.by_seed):.2g}" if len(row.by_seed) > 1 else "",
        "state": row.told_state,
        "chosen": row.chosen,
        "steps": row.steps or "-",
        "error": row.error or "",
    }

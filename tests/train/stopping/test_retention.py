"""The best checkpoints stay, and those of round steps, over restarts."""

import pytest

from phalanx.config.metric_direction import WatchedMetric
from phalanx.config.schema import Mode
from phalanx.train.checkpoint.progress import Progress
from tests.ranks import Results, Starter
from tests.train.stopping.test_stopping import RUN, task

# Which steps are kept is read off a run's own lines; the sets differ, so that their best steps do.
SET = "{_target_: tests.train.faulty_parts.Planted, samples: %d}"
SETS = f"data.eval={{val: {SET % 23}, val2: {SET % 37}}}"
NAMED = tuple(word for word in RUN if not word.startswith(("data.eval", "~data.eval", "+data.eval")))
KEPT = ("checkpoint.keep=1", "checkpoint.keep_every=20", "train.steps=47")
KILL = ("+task.step=33", "+task.training=true", "+task.call=1")


def steps(results: Results) -> list[int]:
    return sorted(int(path.name.removeprefix("step_")) for path in results.folder.glob("checkpoints/step_*[0-9]"))


def best_by_hand(values: dict[int, float], more: bool, count: int) -> list[int]:
    """The best first; of equal ones the older."""
    return sorted(values, key=lambda step: (-values[step] if more else values[step], step))[:count]


@pytest.mark.parametrize(
    ("ranks", "metric"), [(1, "loss"), (1, "val2/loss"), (2, "val2/accuracy"), (1, "val2/loss=max")]
)
def test_the_best_checkpoints_and_those_of_round_steps_stay_also_after_a_kill(
    starter: Starter, ranks: int, metric: str
) -> None:
    """Of the first set, of another by its name, of one where many are equal, and in the direction that is typed."""
    metric, _, mode = metric.partition("=")
    split, _, name = metric.rpartition("/")
    words = (*NAMED, SETS, *KEPT, "checkpoint.keep_best=3", f"checkpoint.best_metric={metric}")
    words += (f"checkpoint.best_mode={mode}",) if mode else ()
    assert -9 in starter.run(ranks, *words, *task(*KILL), "run.name=r").codes
    results = starter.train(ranks, *words, *task(*KILL), name="r")
    values = {split: {line["step"]: line for line in results.metrics(split)} for split in ("val", "val2")}
    of = {step: line[name] for step, line in values[split or "val"].items()}
    best = best_by_hand(of, (mode or ("max" if name == "accuracy" else "min")) == "max", 3)
    assert steps(results) == sorted({*best, 20, 40, 47})
    assert results.summary["best"] == {"step": best[0], "value": of[best[0]]}
    assert (results.folder / "checkpoints/best").read_text() == f"step_{best[0]:08d}\n"
    if name == "accuracy":
        assert len(set(of.values())) < len(of), "some are equal, as they are meant to be"


def test_progress_of_a_version_that_kept_the_best_alone_goes_on() -> None:
    stored = {**Progress(began=0.0, step=9, best_step=6, best_value=0.5).as_json()}
    del stored["top"]
    assert Progress.from_json(stored).top == [(6, 0.5)]
    assert WatchedMetric("eval", "loss", Mode.min).is_better(0.4, Progress.from_json(stored).top[0][1])

"""The best checkpoints stay, and those of round steps, over restarts."""

import pytest

from phalanx.config.metric_direction import WatchedMetric
from phalanx.config.schema import Mode
from phalanx.train.checkpoint.progress import Progress
from tests.ranks import Results, Starter
from tests.train.stopping.test_stopping import RUN, task

KEPT = ("checkpoint.keep=1", "checkpoint.keep_best=3", "checkpoint.keep_every=20", "train.steps=47")


def steps(results: Results) -> list[int]:
    return sorted(int(path.name.removeprefix("step_")) for path in results.folder.glob("checkpoints/step_*[0-9]"))


@pytest.mark.parametrize("ranks", [1, 2])
def test_the_best_checkpoints_and_those_of_round_steps_stay_also_after_a_kill(starter: Starter, ranks: int) -> None:
    where = ("+task.step=33", "+task.training=true", "+task.call=1")
    assert -9 in starter.run(ranks, *RUN, *KEPT, *task(*where), "run.name=r").codes
    results = starter.train(ranks, *RUN, *KEPT, *task(*where), name="r")
    values = {line["step"]: line["loss"] for line in results.metrics("eval")}
    best = sorted(values, key=lambda step: values[step])[:3]
    assert steps(results) == sorted({*best, 20, 40, 47})
    assert results.summary["best"] == {"step": best[0], "value": values[best[0]]}
    assert (results.folder / "checkpoints/best").read_text() == f"step_{best[0]:08d}\n"


def test_progress_of_a_version_that_kept_the_best_alone_goes_on() -> None:
    stored = {**Progress(began=0.0, step=9, best_step=6, best_value=0.5).as_json()}
    del stored["top"]
    assert Progress.from_json(stored).top == [(6, 0.5)]
    assert WatchedMetric("eval", "loss", Mode.min).is_better(0.4, Progress.from_json(stored).top[0][1])

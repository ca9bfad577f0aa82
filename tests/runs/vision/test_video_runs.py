"""Video classification on real processes."""

import pytest

from tests.compare_runs import distance, same
from tests.ranks import Starter
from tests.train.small_runs import killed_after

CLIPS = ("data.train.samples=48", "data.eval.samples=20", "data.train.frames=4", "data.train.size=16")
RUN = (
    *("experiment=video", *CLIPS, "model.width=8", "model.dropout=0.1", "train.precision=fp64", "log.shown=2"),
    *("train.epochs=null", "train.steps=6", "train.global_batch=8", "train.micro_batch=2"),
    *("eval.every_epochs=null", "eval.every=3", "eval.batch=6", "checkpoint.every=2", "log.every=1"),
)


def test_a_video_run_is_killed_and_continued_to_the_same_bits_and_is_the_same_on_any_number_of_ranks(
    starter: Starter,
) -> None:
    runs = {ranks: starter.train(ranks, *RUN, name=f"on{ranks}") for ranks in (1, 2, 3)}
    same(runs[2], killed_after(2, starter, 2, *RUN))
    for ranks in (2, 3):
        assert distance(runs[1], runs[ranks]) < 1e-9
        for alone, shared in zip(runs[1].metrics("eval"), runs[ranks].metrics("eval"), strict=True):
            assert shared["accuracy"] == alone["accuracy"]
            assert shared["loss"] == pytest.approx(alone["loss"], rel=1e-9)
    assert (runs[1].folder / "shown/eval_step_00000006/clips.png").stat().st_size > 500

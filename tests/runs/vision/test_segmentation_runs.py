"""Segmentation on real processes."""

import pytest

from tests.compare_runs import distance, same
from tests.ranks import Starter
from tests.train.small_runs import killed_after

RUN = (
    *("model=unet", "model.classes=3", "model.width=4", "model.levels=2", "task=segmentation"),
    *("task.classes=[red,green,blue]", "task.class_weights=[1,2,0.5]", "checkpoint.best_metric=miou"),
    *("~data.train", "+data.train={_target_: tests.runs.vision.tiles.Tiles, samples: 32}"),
    *("~data.eval", "+data.eval={_target_: tests.runs.vision.tiles.Tiles, samples: 11}"),
    *("~data.augment", "+data.augment={_target_: phalanx.data.CropFlip, size: 8, vertical: true}"),
    *("train.precision=fp64", "train.epochs=null", "train.steps=6", "train.global_batch=8", "optim.lr=0.01"),
    *("eval.every=3", "eval.batch=3", "checkpoint.every=2", "log.every=1", "log.shown=2"),
)


def test_a_segmentation_run_is_killed_and_continued_to_the_same_bits_and_is_the_same_on_any_number_of_ranks(
    starter: Starter,
) -> None:
    runs = {ranks: starter.train(ranks, *RUN, name=f"on{ranks}") for ranks in (1, 2, 3)}
    same(runs[2], killed_after(2, starter, 2, *RUN))
    names = {"accuracy", "miou", "iou/red", "iou/green", "iou/blue"}
    for ranks in (2, 3):
        assert distance(runs[1], runs[ranks]) < 1e-9
        for alone, shared in zip(runs[1].metrics("eval"), runs[ranks].metrics("eval"), strict=True):
            assert {name: shared[name] for name in names} == {name: alone[name] for name in names}
            assert shared["loss"] == pytest.approx(alone["loss"], rel=1e-9)
    shown = {file.name for file in (runs[1].folder / "shown/eval_step_00000006").iterdir()}
    assert {"masks.png", "confusion.png"} <= shown
    assert runs[1].summary["best"]["value"] == max(line["miou"] for line in runs[1].metrics("eval"))


def test_masks_that_do_not_fit_end_with_code_2_before_training(starter: Starter) -> None:
    ended = starter.run(
        2, *RUN, "task.classes=[red,green]", "task.class_weights=null", "model.classes=2", "run.name=two"
    )
    assert ended.codes == [2, 2], ended.output
    assert "A mask has the class 2, and task.classes names 2" in ended.output
    assert not (starter.folder / "runs/two/metrics.jsonl").exists()

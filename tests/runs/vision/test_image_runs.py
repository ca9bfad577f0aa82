"""Image classification from files, on real processes."""

from pathlib import Path

from tests.compare_runs import distance, same
from tests.ranks import Starter, quoted
from tests.train.data.vision.photographs import write_photographs
from tests.train.small_runs import killed_after


def words(root: Path) -> tuple[str, ...]:
    """A tiny network on photographs that two workers decode and crop, mixed by mixup and CutMix."""
    return (
        *("data=image_folder", f"data.train.root={quoted(str(root))}", f"data.eval.root={quoted(str(root))}"),
        *("data.train.crop.size=24", "data.eval.crop.resize=28", "data.workers=2"),
        *("data.augment={_target_: phalanx.data.MixupCutmix, classes: 2, mixup: 0.4, cutmix: 1.0}",),
        *(
            "model=mlp",
            "model.inputs=1728",
            "model.classes=2",
            "task.classes=2",
            "task.label_smoothing=0.1",
            "train.precision=fp64",
            "train.epochs=null",
        ),
        *("train.steps=6", "train.global_batch=8", "eval.every=3", "eval.batch=5", "checkpoint.every=2", "log.every=1"),
    )


def test_a_run_on_image_files_is_killed_and_continued_to_the_same_bits_and_is_the_same_on_any_number_of_ranks(
    starter: Starter, tmp_path: Path
) -> None:
    """The crops, the flips and what is mixed with what follow from the position: the rest is the order of sums."""
    run = words(write_photographs(tmp_path / "photos", 10, (60, 45)))
    runs = {ranks: starter.train(ranks, *run, name=f"on{ranks}") for ranks in (1, 2, 3)}
    same(runs[2], killed_after(2, starter, 2, *run))
    for ranks in (2, 3):
        assert distance(runs[1], runs[ranks]) < 1e-9
        for alone, shared in zip(runs[1].metrics("eval"), runs[ranks].metrics("eval"), strict=True):
            assert shared["accuracy"] == alone["accuracy"]


def test_a_damaged_image_ends_the_run_with_its_name(starter: Starter, tmp_path: Path) -> None:
    root = write_photographs(tmp_path / "photos", 10, (60, 45))
    for file in (root / "flower").iterdir():
        file.write_bytes(file.read_bytes()[:300])
    ended = starter.run(2, *words(root), "run.name=damaged")
    assert ended.codes == [2, 2], ended.output
    assert "cannot be decoded" in ended.output
    assert "photos/flower/0" in ended.output
    assert "Traceback" not in ended.output

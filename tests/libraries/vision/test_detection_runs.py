"""Detection on real processes: a small detector of ours, and boxes of the user's own."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.compare_runs import same
from tests.ranks import Starter, quoted
from tests.train.small_runs import killed_after

pytestmark = pytest.mark.zoo

SCENES = ("data.train.samples=24", "data.eval.samples=10", "data.train.size=48", "data.train.most=2")
RUN = (
    *(
        "experiment=detection",
        *SCENES,
        "model.size=48",
        "model.width=32",
        "model.head_convs=1",
        "task.class_metrics=true",
    ),
    *("train.epochs=null", "train.steps=6", "train.global_batch=6", "eval.every_epochs=null", "eval.every=3"),
    *("eval.batch=4", "checkpoint.every=2", "log.every=1", "log.shown=2"),
)


def test_a_detection_run_is_killed_and_continued_to_the_same_bits_and_its_map_is_that_of_one_rank(
    starter: Starter,
) -> None:
    undisturbed = starter.train(2, *RUN, name="undisturbed")
    same(undisturbed, killed_after(2, starter, 2, *RUN))
    assert (undisturbed.folder / "shown/eval_step_00000006/boxes.png").stat().st_size > 500
    last = (*RUN, f"train.init_from={quoted(str(undisturbed.folder))}", "optim.lr=1e-300", "train.steps=1")
    lines = [starter.train(ranks, *last, name=f"on{ranks}").metrics("eval")[-1] for ranks in (1, 2, 3)]
    numbers = [{key: value for key, value in line.items() if key.startswith("map")} for line in lines]
    assert numbers[0] == numbers[1] == numbers[2]
    assert {"map", "map_50", "map/1", "map/10"} <= numbers[0].keys()


def test_a_detector_trains_on_boxes_of_the_users_own_and_bad_ones_are_told_with_code_2(
    starter: Starter, tmp_path: Path
) -> None:
    from PIL import Image
    from torchvision.transforms.functional import to_pil_image

    from phalanx.train.data.vision.digit_scenes import DigitScenes

    scenes = DigitScenes("train", samples=6, size=48, most=2, seed=0)
    (tmp_path / "pictures").mkdir()
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, (image, target) in enumerate(map(scenes.__getitem__, range(6))):
        picture: Image.Image = to_pil_image(image)
        picture.save(tmp_path / f"pictures/{number}.png")
        images.append({"id": number, "file_name": f"{number}.png"})
        for (left, top, right, bottom), label in zip(target["boxes"].tolist(), target["labels"].tolist(), strict=True):
            box = [left, top, right - left, bottom - top]
            annotations.append({"image_id": number, "category_id": label, "bbox": box, "id": len(annotations)})
    content = {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": i, "name": str(i)} for i in range(1, 11)],
    }
    (tmp_path / "boxes.json").write_text(json.dumps(content))
    own = f"{{_target_: phalanx.data.CocoDetection, images: {quoted(str(tmp_path / 'pictures'))}, annotations: "
    own += f"{quoted(str(tmp_path / 'boxes.json'))}}}"
    words = (*(word for word in RUN if not word.startswith("data.")), "~data.train", "~data.eval", f"+data.train={own}")
    run = starter.train(2, *words, f"+data.eval={own}", name="own")
    assert run.metrics("eval")[-1]["map"] >= 0
    annotations[3]["bbox"] = [40, 0, 30, 8]
    (tmp_path / "boxes.json").write_text(json.dumps(content))
    ended = starter.run(2, *words, f"+data.eval={own}", "run.name=bad")
    assert ended.codes == [2, 2], ended.output
    assert f"{tmp_path}/boxes.json: annotations[3] (id 3) has a box from (40, 0) to (70, 8)" in ended.output

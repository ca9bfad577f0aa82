"""Data sets, transforms and collators of libraries, on any number of ranks, with workers and over a kill."""

from pathlib import Path

import pytest

from tests.libraries.data.parts import write_images
from tests.ranks import Starter, until
from tests.runs.test_equivalence import distance

pytestmark = pytest.mark.zoo

HERE = "tests.libraries.data.parts"
SHORT = (
    *("~data.train", "data.eval=null", "data.augment=null", "checkpoint.best_metric=loss", "train.epochs=null"),
    *("train.precision=fp64", "eval.every=null", "schedule=constant", "checkpoint.every=4", "train.global_batch=12"),
)
PADDED = (
    *(f"+data.train={{_target_:{HERE}.sentences,samples:60}}", "~model", f"+model._target_={HERE}.bert"),
    f"data.collate={{_target_:transformers.DataCollatorWithPadding,tokenizer:{{_target_:{HERE}.tokenizer}}}}",
    *("~task", f"+task._target_={HERE}.Classify"),
)


def test_transformers_collator_pads_hugging_faces_data_set_on_any_ranks_and_over_a_kill(starter: Starter) -> None:
    run = (*SHORT, *PADDED, "train.steps=12")
    one = starter.train(1, *run, name="one")
    assert distance(one, starter.train(2, *run, "data.workers=1", name="two")) < 1e-9
    world = starter.start(1, *run, "run.name=killed")
    until(lambda: bool([*starter.results("killed").folder.glob("checkpoints/step_00000004/manifest.json")]))
    world.kill()
    world.wait()
    assert starter.train(1, *run, name="killed").sha256 == one.sha256


def test_classes_are_balanced_by_a_column_of_hugging_faces_data_set(starter: Starter) -> None:
    balanced = "data.sampler={_target_:phalanx.samplers.Weighted,weights:balance}"
    one, two = (starter.train(n, *SHORT, *PADDED, balanced, "train.steps=6", name=f"on{n}") for n in (1, 2))
    assert distance(one, two) < 1e-9


def test_a_folder_of_jpegs_with_random_transforms_is_read_by_workers_as_by_the_rank(
    starter: Starter, tmp_path: Path
) -> None:
    write_images(tmp_path / "images")
    v2 = "torchvision.transforms.v2"
    transforms = ",".join(
        [
            f"{{_target_:{v2}.RandomResizedCrop,size:8}}",
            f"{{_target_:{v2}.RandomHorizontalFlip}}",
            f"{{_target_:{v2}.ToImage}}",
            f"{{_target_:{v2}.ToDtype,dtype:torch.float32,scale:true}}",
        ]
    )
    folder = f"_target_:torchvision.datasets.ImageFolder,root:{tmp_path / 'images'}"
    run = (
        *SHORT,
        f"+data.train={{{folder},transform:{{_target_:{v2}.Compose,transforms:[{transforms}]}}}}",
        *("model=mlp", "model.inputs=192", "model.classes=2", "task.classes=2", "train.steps=10"),
        "data.sampler={_target_:phalanx.samplers.Weighted,weights:balance}",
    )
    here, there = (starter.train(1, *run, f"data.workers={workers}", name=f"by{workers}") for workers in (0, 2))
    assert here.sha256 == there.sha256
    assert distance(here, starter.train(2, *run, name="two")) < 1e-9


def test_lists_of_images_and_boxes_come_from_workers_as_they_are(starter: Starter) -> None:
    run = (
        *SHORT,
        f"+data.train={{_target_:{HERE}.boxes,samples:40}}",
        f"data.collate={{_target_:{HERE}.columns,_partial_:true}}",
        *("~model", "+model={_target_:torch.nn.Linear,in_features:3,out_features:1}"),
        *("~task", f"+task._target_={HERE}.CountBoxes", "train.steps=6"),
    )
    here, there = (starter.train(1, *run, f"data.workers={workers}", name=f"by{workers}") for workers in (0, 2))
    assert here.sha256 == there.sha256
    assert distance(here, starter.train(2, *run, name="two")) < 1e-9

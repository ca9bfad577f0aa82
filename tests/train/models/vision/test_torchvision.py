"""torchvision's networks by name: published sizes, weights from a file, and ImageNet's experiments on the meta device."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.models import resnet18

from phalanx.compose.compose import compose
from phalanx.config.limits import check
from phalanx.config.schema import Config
from phalanx.exit.codes import ConfigError
from phalanx.train.engine.parts.config_targets import check_targets, targets
from phalanx.train.schedules.schedule import Schedule, factors
from phalanx.train.start_point.init_from import load_initial, start_point
from phalanx.train.tasks.classification import Classification
from tests.ranks import quoted
from tests.train.models.meta_step import optimizer_on_meta

IMAGENET = 1_281_167  # training images
TOP_5 = 5


def made(words: list[str], key: str, kind: Any) -> tuple[Config, Any]:
    config = compose(words).config
    builder = targets(config, foreign=False)
    return config, builder.build(getattr(config, key), key, kind)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        *(("alexnet", 61_100_840), ("vgg16", 138_357_544)),
        *(("resnet18", 11_689_512), ("resnet34", 21_797_672), ("resnet50", 25_557_032)),
    ],
)
def test_networks_have_the_published_number_of_parameters(name: str, parameters: int) -> None:
    with torch.device("meta"):
        _, model = made([f"model={name}", "model.num_classes=1000"], "model", nn.Module)
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters


def test_weights_of_1000_classes_go_into_a_model_of_ten_but_for_the_head(tmp_path: Path) -> None:
    """Without a word of the head the run does not start; with it what is drawn anew is told."""
    torch.manual_seed(1)
    published = resnet18(num_classes=1000)
    torch.save(published.state_dict(), tmp_path / "resnet18.pth")
    words = ["model=resnet18", f"train.init_from={quoted(str(tmp_path / 'resnet18.pth'))}"]
    config, model = made(words, "model", nn.Module)
    with pytest.raises(
        ConfigError, match=r"fc\.weight is \(1000, 512\) there and \(10, 512\) in the model.*init_skip=fc"
    ):
        load_initial(model, start_point(config), config.train)
    config, model = made([*words, "train.init_skip=fc.*"], "model", nn.Module)
    check(config, ranks=1)
    drawn = {name: value.clone() for name, value in model.fc.state_dict().items()}
    matched = load_initial(model, start_point(config), config.train)
    assert matched is not None
    assert sorted(matched.new) == ["fc.bias", "fc.weight"]
    for name, value in model.state_dict().items():
        kept = drawn.get(name.removeprefix("fc."))
        assert torch.equal(value, published.state_dict()[name] if kept is None else kept), name


@pytest.mark.parametrize(
    ("name", "undecayed", "rates"),
    [
        ("alexnet", 0, {0: 0.01, 29: 0.01, 31: 0.001, 89: 0.0001}),
        ("vgg16", 0, {0: 0.01, 29: 0.01, 31: 0.001, 89: 0.0001}),
        ("resnet50", 107, {6: 3.2, 29: 3.2, 31: 0.32, 61: 0.032, 81: 0.0032, 89: 0.0032}),
    ],
)
def test_imagenet_experiments_take_a_step_on_tensors_without_values(
    name: str, undecayed: int, rates: dict[int, float]
) -> None:
    """Forward, loss, backward and optimizer at full size; `rates` by epoch, `undecayed` tensors without weight decay."""
    config = compose([f"experiment=imagenet_{name}", "world.device=cpu", "optim.fused=false"]).config
    check(config, ranks=1)
    builder = targets(config, foreign=False)
    check_targets(config, builder)
    steps = round(config.train.epochs * IMAGENET / config.train.global_batch)  # type: ignore[operator]
    schedule = builder.build(config.schedule, "schedule", Schedule)  # type: ignore[type-abstract]
    by_step = factors(schedule, steps)
    lr = config.optim["lr"]
    for epoch, rate in rates.items():
        assert lr * by_step[round(epoch * IMAGENET / config.train.global_batch)] == pytest.approx(rate), epoch
    with torch.device("meta"):
        model = builder.build(config.model, "model", nn.Module).train()
        images, labels = torch.empty(4, 3, 224, 224), torch.empty(4, dtype=torch.int64)
    named = list(model.named_parameters())
    optimizer = optimizer_on_meta(config, builder, model, steps)
    task = builder.build(config.task, "task", Classification)
    task._looked_at = {True, False}  # what the labels' range is cannot be looked at
    ratios = task.ratios(model, (images, labels))
    assert set(ratios) == {"loss", "accuracy", f"top{TOP_5}_accuracy"}
    ratios["loss"].total.backward()
    assert all(parameter.grad is not None and parameter.grad.shape == parameter.shape for _, parameter in named)
    optimizer.step()
    free = [each for group in optimizer.param_groups if not group["weight_decay"] for each in group["params"]]
    assert len(free) == undecayed
    assert task.ratios(model.eval(), (images, labels))["loss"].count == 4


def test_the_hour_long_recipe_warms_up_over_five_epochs_and_begins_each_block_with_the_identity() -> None:
    config = compose(["experiment=imagenet_resnet50"]).config
    schedule = targets(config, foreign=False).build(config.schedule, "schedule", Schedule)  # type: ignore[type-abstract]
    found = factors(schedule, 14_076)
    assert found[0] == pytest.approx(1 / 783)
    assert np.argmax(found) == 782  # 5 epochs of 156.4 steps of 8,192 images
    _, model = made(["experiment=imagenet_resnet50"], "model", nn.Module)
    zero = [name for name, value in model.named_parameters() if "bn" in name and not value.any() and "weight" in name]
    assert len(zero) == 16
    assert all(name.endswith("bn3.weight") for name in zero)
    assert config.task["label_smoothing"] == 0

"""The small models for pictures and clips, and torchvision's of full size, on tensors without data."""

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import nn

from phalanx.compose.compose import compose
from phalanx.targets.instantiate import Targets
from phalanx.train.models.vision.small_fcos import SmallFCOS
from phalanx.train.models.vision.unet import UNet
from phalanx.train.models.vision.video_net import VideoNet
from phalanx.train.tasks.model_answer import logits_of


def parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def built(*words: str) -> Any:
    """The model of a command line."""
    return Targets((nn.Module,), None).build(dict(compose(list(words)).config.model), "model", nn.Module)


def test_a_unet_takes_pictures_of_any_size_and_answers_at_their_resolution() -> None:
    model = UNet(channels=3, classes=5, width=8, levels=3)
    for height, width in ((16, 16), (17, 30), (1, 9), (90, 90)):
        assert model(torch.randn(2, 3, height, width)).shape == (2, 5, height, width)
    assert parameters(UNet(3, 6, 16, 4)) == 483_526


def test_a_unet_tells_pictures_apart_by_their_colour_alone() -> None:
    """Which a normalisation over the whole picture takes away, as GroupNorm does."""
    torch.manual_seed(0)
    model = UNet(3, 2, 8, 2)
    dark, bright = (model(torch.full((1, 3, 16, 16), shade)) for shade in (0.2, 0.9))
    assert (dark - bright).abs().max() > 0.01


def test_no_answer_of_the_small_models_depends_on_the_rest_of_the_batch() -> None:
    """So that the same model trains on any number of ranks."""
    torch.manual_seed(0)
    clips, images = torch.randn(3, 1, 4, 12, 12), torch.randn(3, 3, 16, 16)
    for model, inputs in ((VideoNet(1, 4, 8, 0.0), clips), (UNet(3, 2, 8, 3), images)):
        assert torch.allclose(model(inputs)[1:2], model(inputs[1:2]), atol=1e-5)


def test_a_small_fcos_gives_losses_in_training_and_boxes_else() -> None:
    torch.manual_seed(0)
    model = SmallFCOS(classes=3, size=32, width=32, head_convs=1, score_thresh=0.0)
    images = [torch.rand(3, 32, 32), torch.rand(3, 40, 32)]
    targets = [
        {"boxes": torch.tensor([[4.0, 4.0, 20.0, 24.0]]), "labels": torch.tensor([1])},
        {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)},
    ]
    losses = model(images, targets)
    assert isinstance(losses, dict)
    assert set(losses) == {"classification", "bbox_regression", "bbox_ctrness"}
    torch.stack(list(losses.values())).sum().backward()  # type: ignore[no-untyped-call]
    assert all(weight.grad is not None for weight in model.parameters())
    found = model.eval()(images)
    assert isinstance(found, list)
    assert [set(each) for each in found] == [{"boxes", "scores", "labels"}] * 2
    assert parameters(SmallFCOS(11, 96, 64, 2, 0.05)) == 264_416


def test_a_video_net_takes_clips_of_any_length() -> None:
    model = VideoNet(1, 16, 16, 0.0)
    for frames in (1, 2, 7, 12):
        assert model(torch.randn(2, 1, frames, 24, 24)).shape == (2, 16)
    assert parameters(model) == 90_208


IMPOSSIBLE: Mapping[str, Callable[[], nn.Module]] = {
    "no channels": lambda: UNet(3, 2, 0, 2),
    "one level": lambda: UNet(3, 2, 8, 1),
    "no groups of a head": lambda: SmallFCOS(3, 32, 40, 1, 0.1),
    "no groups": lambda: VideoNet(1, 2, 4, 0.0),
}


@pytest.mark.parametrize("what", IMPOSSIBLE)
def test_a_width_that_cannot_be_is_told(what: str) -> None:
    with pytest.raises(ValueError, match="must be"):
        IMPOSSIBLE[what]()


FULL_SIZE: Mapping[str, tuple[int, tuple[int, ...], tuple[int, ...], int]] = {
    # classes, as of torchvision's own weights, the shapes of a batch and of the answer, parameters
    "r3d_18": (400, (2, 3, 16, 112, 112), (2, 400), 33_371_472),
    "mc3_18": (400, (2, 3, 16, 112, 112), (2, 400), 11_695_440),
    "swin3d_t": (400, (2, 3, 32, 224, 224), (2, 400), 28_158_070),
    "lraspp_mobilenet_v3_large": (
        21,
        (2, 3, 520, 520),
        (2, 21, 520, 520),
        3_221_538,
    ),
    "deeplabv3_resnet50": (
        21,
        (2, 3, 520, 520),
        (2, 21, 520, 520),
        42_004_074,
    ),
    "fcn_resnet50": (21, (2, 3, 520, 520), (2, 21, 520, 520), 35_322_218),
}


@pytest.mark.parametrize("name", FULL_SIZE)
def test_torchvisions_models_of_full_size_take_full_sized_inputs(name: str) -> None:
    """By the name that a command line has for them, with as many parameters as are published."""
    classes, shape, answer, published = FULL_SIZE[name]
    model = built(f"model={name}", f"model.num_classes={classes}").to("meta")
    logits = logits_of(model(torch.empty(shape, device="meta")))
    assert tuple(logits.shape) == answer
    logits.sum().backward()  # type: ignore[no-untyped-call]
    assert parameters(model) == published


DETECTORS = {
    # Drawn anew, their BatchNorm trains; with weights of ImageNet it is frozen, and its 53,120 numbers are no parameters.
    "fasterrcnn_resnet50_fpn": 41_755_286 + 53_120,
    "fcos_resnet50_fpn": 32_269_600 + 53_120,
    "ssdlite320_mobilenet_v3_large": 3_440_060,
}


@pytest.mark.parametrize("name", DETECTORS)
def test_torchvisions_detectors_are_built_by_name(name: str) -> None:
    """With as many parameters as are published for the 91 classes of COCO."""
    with torch.device("meta"):
        model = built(f"model={name}", "model.num_classes=91")
    assert parameters(model) == DETECTORS[name]

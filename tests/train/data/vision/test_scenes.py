"""Synthetic scenes and clips: what is drawn is what the labels say, and the same whoever asks."""

import numpy as np
import pytest
import torch

from phalanx.exit.codes import ConfigError
from phalanx.train.data.vision.digit_scenes import DigitScenes
from phalanx.train.data.vision.moving_digits import DIRECTIONS, MovingDigits


@pytest.fixture(scope="module")
def scenes() -> DigitScenes:
    return DigitScenes("train", samples=40, size=96, most=6, seed=0)


def test_boxes_lie_in_their_scenes_and_several_sizes_classes_and_overlaps_are_there(scenes: DigitScenes) -> None:
    targets = [scenes[i][1] for i in range(len(scenes))]
    boxes = torch.cat([target["boxes"] for target in targets])
    assert boxes.min() >= 0
    assert boxes.max() <= 96
    sides = boxes[:, 2:] - boxes[:, :2]
    assert sides.min() >= 3
    assert sides.max() > 2 * sides.max(1).values.min()
    assert {label for target in targets for label in target["labels"].tolist()} == set(range(1, 11))
    assert any(_overlaps(target["boxes"]) for target in targets)
    assert {len(target["boxes"]) for target in targets} >= {1, 2, 3, 4, 5}


def _overlaps(boxes: torch.Tensor) -> bool:
    corner = torch.maximum(boxes[:, None, :2], boxes[:, :2]) < torch.minimum(boxes[:, None, 2:], boxes[:, 2:])
    return bool(corner.all(-1).triu(1).any())


def test_what_a_box_is_drawn_around_stands_out_of_its_scene(scenes: DigitScenes) -> None:
    """On average over scenes pixels within boxes are brighter than those outside."""
    inside, outside = [], []
    for image, target in map(scenes.__getitem__, range(len(scenes))):
        mask = torch.zeros(96, 96, dtype=torch.bool)
        for left, top, right, bottom in target["boxes"].int().tolist():
            mask[top:bottom, left:right] = True
        inside.append(image[:, mask].mean())
        outside.append(image[:, ~mask].mean())
    assert torch.stack(inside).mean() > torch.stack(outside).mean() + 0.1


def test_scenes_are_the_same_in_each_process_and_others_in_the_other_split(scenes: DigitScenes) -> None:
    again = DigitScenes("train", samples=40, size=96, most=6, seed=0)
    assert scenes.fingerprint() == again.fingerprint()
    others = [
        DigitScenes("held_out", 40, 96, 6, 0),
        DigitScenes("train", 40, 96, 6, 1),
        DigitScenes("train", 41, 96, 6, 0),
    ]
    assert len({scenes.fingerprint(), *(other.fingerprint() for other in others)}) == 4
    assert torch.equal(others[2][7][0], scenes[7][0])  # a picture does not depend on how many there are


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (DigitScenes, {"split": "test", "samples": 1, "size": 96, "most": 1}),
        (DigitScenes, {"split": "train", "samples": 1, "size": 30, "most": 1}),
        (MovingDigits, {"split": "test", "samples": 1, "frames": 4, "size": 24, "channels": 1}),
        (MovingDigits, {"split": "train", "samples": 1, "frames": 1, "size": 24, "channels": 1}),
        (MovingDigits, {"split": "train", "samples": 1, "frames": 4, "size": 10, "channels": 1}),
    ],
)
def test_what_cannot_be_drawn_is_told(kind: type, options: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=r"Type split=|cannot be drawn"):
        kind(**options, seed=0)


@pytest.fixture(scope="module")
def clips() -> MovingDigits:
    return MovingDigits("train", samples=64, frames=12, size=24, channels=1, seed=0)


def test_clips_move_as_their_classes_say(clips: MovingDigits) -> None:
    """By the shift at which a frame is most like the one four frames before, and the speed that it tells."""
    found, labels = clips.__getitems__(np.arange(64))
    for clip, label in zip(found[:, 0], labels.tolist(), strict=True):
        shift = _shift(clip[3], clip[7])
        direction = DIRECTIONS[label // 2]
        angle = np.arctan2(*shift)  # rows grow downwards
        expected = label // 2 * np.pi / 4
        assert abs(np.angle(np.exp(1j * (angle - expected)))) < np.pi / 8, (direction, shift)
        assert (np.hypot(*shift) / 4 > 1.6) == ("fast" in clips.classes[label]), shift


def _shift(one: torch.Tensor, other: torch.Tensor) -> tuple[int, int]:
    """Rows and columns, at most half the frame, by which `one` is moved round the torus to be most like `other`."""
    spectrum = torch.fft.fft2(other) * torch.fft.fft2(one).conj()
    place = int(torch.fft.ifft2(spectrum).real.argmax())
    rows, columns = divmod(place, one.shape[1])
    return (rows + 12) % 24 - 12, (columns + 12) % 24 - 12


def test_a_single_frame_has_the_digit_anywhere_whatever_the_class() -> None:
    """The mean of the first frames, and of the last ones, is the same for all classes, up to noise."""
    clips = MovingDigits("train", samples=3200, frames=6, size=24, channels=1, seed=0)
    found, labels = clips.__getitems__(np.arange(3200))
    for frame in (0, 5):
        means = torch.stack([found[labels == kind, 0, frame].mean((1, 2)).mean() for kind in range(16)])
        assert means.std() < 0.02
        centres = torch.stack([found[labels == kind, 0, frame].mean(0) for kind in range(16)])
        assert centres.std(0).mean() < 1.3 * found[:, 0, frame].std(0).mean() / 200**0.5


def test_clips_are_the_same_alone_and_in_any_batch(clips: MovingDigits) -> None:
    batch, labels = clips.__getitems__(np.array([5, 40, 3]))
    assert torch.equal(batch[1], clips[40][0])
    assert labels.tolist() == [clips[i][1] for i in (5, 40, 3)]
    assert clips.fingerprint() == MovingDigits("train", 64, 12, 24, 1, 0).fingerprint()
    assert clips.fingerprint() != MovingDigits("held_out", 64, 12, 24, 1, 0).fingerprint()
    colour = MovingDigits("train", 64, 12, 24, 3, 0)[40][0]
    assert torch.equal(colour, clips[40][0].expand(3, -1, -1, -1))

"""Pictures say what they were given: colours where a model is right or wrong, boxes and masks where they lie."""

import io
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image as Picture

from phalanx import ConfigError, Image, drawing
from phalanx.train.tasks.drawing import canvas
from phalanx.train.tasks.drawing.host_pictures import host_pictures


def drawn(item: Image) -> NDArray[np.uint8]:
    """(h, w, 3), as the file has it."""
    with Picture.open(io.BytesIO(item.held().content)) as picture:
        return np.asarray(picture.convert("RGB"))


def pixels_of(pixels: NDArray[np.uint8], colour: tuple[int, ...]) -> int:
    return int((pixels == colour).all(2).sum())


def test_only_what_is_wrong_is_framed() -> None:
    images, labels = torch.rand(4, 8, 8) / 2, torch.arange(4)
    right = drawn(drawing.labelled_images(images, labels, labels))
    wrong = drawn(drawing.labelled_images(images, labels, labels.flip(0)))
    assert pixels_of(right, canvas.WRONG) == 0 < pixels_of(right, canvas.RIGHT)
    assert pixels_of(wrong, canvas.WRONG) > 4 * 4 * 5 * 180
    assert pixels_of(wrong, canvas.RIGHT) == 0


def test_a_picture_is_a_copy_that_outlives_its_batch() -> None:
    """It is drawn later, when a loader may have written the next batch in its place."""
    images, labels = torch.zeros(2, 3, 8, 8), torch.tensor([0, 1])
    items = [drawing.labelled_images(images, labels), Image(images[0])]
    before = [drawn(drawing.labelled_images(images.clone(), labels)), drawn(Image(images[0].clone()))]
    held = [item.held() for item in items]
    images.fill_(1.0)
    labels.fill_(7)
    assert all(np.array_equal(drawn(item), was) for item, was in zip(held, before, strict=True))


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (torch.tensor([[[0, 200]]], dtype=torch.uint8), [0, 200]),
        (torch.tensor([[[0.0, 0.5]]]), [0, 128]),
        (torch.tensor([[[-2.0, 2.0]]]), [0, 255]),
        (torch.tensor([[[-2.0, float("nan"), 2.0]]]), [0, 128, 255]),
        (torch.zeros(1, 5, 1, 2), [0, 0]),
        ([torch.ones(1, 2), torch.zeros(3, 4, 4)], [255, 255]),
    ],
)
def test_pixels_of_any_range_become_bytes(given: Any, expected: list[int]) -> None:
    assert host_pictures(given, 1)[0].pixels()[0, :, 0].tolist() == expected


def test_boxes_lie_where_they_were_given_in_any_format() -> None:
    image, target = torch.zeros(3, 104, 104), {"boxes": torch.tensor([[26.0, 52.0, 52.0, 78.0]])}
    pixels = drawn(drawing.boxes([image], [target], None))
    rows, columns = np.nonzero((pixels == canvas.RIGHT).all(2))
    gap, factor = canvas.GAP, 4
    assert (rows.min(), rows.max()) == (gap + 52 * factor, gap + 78 * factor)
    assert (columns.min(), columns.max()) == (gap + 26 * factor, gap + 52 * factor)
    for form, corners in (("xywh", [26.0, 52.0, 26.0, 26.0]), ("cxcywh", [39.0, 65.0, 26.0, 26.0])):
        other = drawing.boxes([image], [{"boxes": torch.tensor([corners])}], None, box_format=form)
        assert np.array_equal(drawn(other), pixels)


def test_boxes_of_low_scores_and_boxes_of_no_size_are_no_trouble() -> None:
    found = {
        "boxes": torch.tensor([[1.0, 1, 5, 5], [2, 2, 2, 2], [float("nan"), 0, 1, 1], [-50, -50, 900, 900]]),
        "labels": torch.tensor([1, 2, 3, 4]),
        "scores": torch.tensor([0.1, 0.2, 0.3, 0.4]),
    }
    images = torch.rand(1, 3, 16, 16) * 0.4
    assert pixels_of(drawn(drawing.boxes(images, None, [found])), canvas.WRONG) == 0
    assert pixels_of(drawn(drawing.boxes(images, None, [found], least_score=0.0)), canvas.WRONG) > 0
    nothing = {
        "boxes": torch.zeros(0, 4),
        "labels": torch.zeros(0),
        "scores": torch.zeros(0),
        "masks": torch.zeros(0, 1, 16, 16),
    }
    drawn(drawing.boxes(images, [nothing], [nothing]))


def test_masks_say_what_share_of_the_pixels_is_right() -> None:
    images, true = torch.rand(1, 3, 8, 8), torch.zeros(1, 8, 8, dtype=torch.long)
    true[0, :2] = 255
    found = true.clone()
    found[0, 2:4] = 1
    pixels = drawn(drawing.masks(images, true, found, names=["ground", "ball"]))
    errors = pixels_of(pixels, canvas.WRONG)
    assert errors == 2 * 8 * 40 * 40, "16 of the 48 pixels that count, each 40 by 40"
    assert pixels_of(drawn(drawing.masks(images, true, true)), canvas.WRONG) == 0


def test_the_brightest_of_a_spectrogram_is_where_it_is_loudest() -> None:
    mel = torch.full((40, 100), -10.0)
    mel[:2, 90:] = 5.0
    pixels = drawn(drawing.spectrogram(mel, rate=16000, hop=160)).astype(int)
    loud = np.argwhere((pixels == canvas.ramp("magma")[255]).all(2)).mean(0)
    assert loud[0] > pixels.shape[0] * 0.6, "low bands are below"
    assert loud[1] > pixels.shape[1] * 0.8, "late frames are at the right"


def test_words_of_any_script_are_written(monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["nächste", "żółć", "привет", "\n", " ", "日本"]
    drawn(drawing.attention(torch.rand(2, 6, 6), words))
    monkeypatch.setattr(canvas, "_broad", lambda size: None)  # a machine without fonts
    drawn(drawing.attention(torch.rand(2, 6, 6), words))
    assert canvas._font("nächste", 20)[1] == "nachste"
    assert canvas._font("日本ß", 20)[1] == "??ss"


def test_numbers_against_numbers_are_counted_in_their_bins() -> None:
    metric = drawing.PredictedAgainstTrue(1, 5, bins=4)
    metric.update(torch.tensor([1.0, 5.0, 9.0, float("nan"), 2.5]), torch.tensor([1.0, 5.0, -3.0, 1.0, 4.5]))
    counts = metric.counts[:-1].view(4, 4)
    assert counts.sum() == 4
    assert [counts[0, 0], counts[3, 3], counts[3, 0], counts[1, 3]] == [1, 1, 1, 1]
    drawn(metric.show())
    drawn(drawing.predicted_against_true([1, 1], [1, 1]))


def test_texts_of_one_sample_stand_in_one_row() -> None:
    table = drawing.texts({"source": ["a"] * 20, "made": ["b" * 3000] * 20, "score": [0.5] * 20})
    assert (len(table.rows), table.rows[0][0], len(str(table.rows[0][1])), table.rows[0][2]) == (16, "a", 2001, 0.5)


@pytest.mark.parametrize(
    ("draw", "says"),
    [
        (lambda: drawing.labelled_images(torch.rand(3, 8, 8), torch.arange(2)), "3 images to draw and 2 labels"),
        (lambda: drawing.labelled_images(torch.rand(3), torch.arange(3)), r"A picture of shape \(\)"),
        (lambda: drawing.boxes(torch.rand(2, 3, 8, 8), [{}], None), "2 images to draw and 1 dicts of targets"),
        (lambda: drawing.masks(torch.rand(1, 3, 8, 8), torch.zeros(1, 2, 8, 8)), r"shape \(2, 8, 8\).*argmax"),
        (lambda: drawing.confusion_matrix(torch.zeros(2, 3)), r"shape \(2, 3\)"),
        (lambda: drawing.spectrogram(torch.zeros(3)), r"shape \(3,\)"),
        (lambda: drawing.attention(torch.zeros(2, 2), ["a", "b", "c"]), "no weight for each of 3 tokens"),
        (lambda: drawing.texts({"a": [1], "b": []}), "different lengths: 1 of a, 0 of b"),
        (lambda: drawing.predicted_against_true([1], []), "1 predicted and 0 true"),
        (lambda: drawing.ConfusionMatrix(1), "of 1 classes"),
    ],
)
def test_what_cannot_be_drawn_is_told_when_it_is_given(draw: Callable[[], object], says: str) -> None:
    with pytest.raises(ConfigError) as raised:
        draw()
    assert re.search(says, str(raised.value))

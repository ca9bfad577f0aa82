"""The data of the default experiment, in memory."""

import hashlib

import numpy as np
import pytest
import torch
from torch.utils.data import Subset

from phalanx.exit.codes import ConfigError
from phalanx.train.data.digits import Digits
from phalanx.train.data.images import Images
from phalanx.train.loading.shard import Span
from tests.train.loading.batches import source


def counts(digits: Digits) -> list[int]:
    return torch.bincount(digits.labels, minlength=10).tolist()


def test_a_fixed_stratified_fifth_of_the_digits_is_held_out() -> None:
    training, held_out = Digits("train"), Digits("held_out")
    assert (len(training), len(held_out)) == (1438, 359)
    for kept, out in zip(counts(training), counts(held_out), strict=True):
        assert out == round((kept + out) / 5)
    chosen = hashlib.sha256(held_out.labels.numpy().tobytes() + training.labels.numpy().tobytes()).hexdigest()
    assert chosen == "e395f80b3fb7aace3adc3fd99173099a4b7c7618cdddca8619fadb8bb5a08a6f"


def test_no_training_sample_is_held_out() -> None:
    """scikit-learn's set holds no two equal images, so equal pixels would be the same sample."""
    everything = [image.numpy().tobytes() for split in ("train", "held_out") for image, _ in _samples(Digits(split))]
    assert len(set(everything)) == 1797


def test_the_images_are_enlarged_and_standardised() -> None:
    images = torch.cat([Digits(split).__getitems__(np.arange(359))[0] for split in ("train", "held_out")])
    assert images.shape == (718, 1, 28, 28)
    assert images.dtype == torch.float32
    assert abs(images.mean()) < 0.05
    assert abs(images.std() - 1) < 0.05


def test_the_fingerprint_tells_pixels_and_labels() -> None:
    pixels, labels = np.zeros((3, 4, 4), np.uint8), np.arange(3)
    other = pixels.copy()
    other[1, 2, 3] = 1
    prints = {
        Images(pixels, labels, 0.5, 0.5).fingerprint(),
        Images(other, labels, 0.5, 0.5).fingerprint(),
        Images(pixels, labels[::-1], 0.5, 0.5).fingerprint(),
    }
    assert len(prints) == 3
    assert Digits("train").fingerprint() == Digits("train").fingerprint() != Digits("held_out").fingerprint()


def test_images_give_the_same_by_sample_and_by_batch_also_through_a_subset() -> None:
    digits = Digits("held_out")
    images, labels = digits.__getitems__(np.array([5, 0, 358]))
    assert torch.equal(torch.stack([digits[i][0] for i in (5, 0, 358)]), images)
    assert [int(digits[i][1]) for i in (5, 0, 358)] == labels.tolist()
    half = source(Subset(digits, range(0, 359, 2))).__getitems__(Span(0, 180))
    assert sorted(half[1].tolist()) == sorted(digits.labels[::2].tolist())


def test_pixels_and_labels_that_do_not_match_are_refused() -> None:
    with pytest.raises(ValueError, match="3 images come with 2 labels"):
        Images(np.zeros((3, 4, 4), np.uint8), np.zeros(2, np.int64), 0.5, 0.5)


def test_there_are_two_splits() -> None:
    with pytest.raises(ConfigError, match="held_out"):
        Digits("test")


def _samples(digits: Digits) -> list[tuple[torch.Tensor, torch.Tensor]]:
    return [digits[i] for i in range(len(digits))]

"""Crops and flips change pictures and masks alike, by each sample's position alone."""

import numpy as np
import pytest
import torch

from phalanx.exit.codes import ConfigError
from phalanx.train.data.vision.crop_flip import CropFlip
from phalanx.train.loading.rng import Draws


def numbered(samples: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Images whose first channel is the mask, which has another number at each pixel."""
    masks = torch.arange(12 * 20).view(1, 12, 20).repeat(samples, 1, 1)
    return torch.stack([masks.float(), -masks.float()], 1), masks


def changed(positions: "np.ndarray[tuple[int], np.dtype[np.int64]]", vertical: bool = True) -> torch.Tensor:
    images, masks = CropFlip(8, vertical)(numbered(len(positions)), Draws(7, positions))
    assert images.shape == (len(positions), 2, 8, 8)
    assert torch.equal(images[:, 0], masks.float())
    assert torch.equal(images[:, 1], -masks.float())
    return masks


def distinct(numbers: torch.Tensor) -> list[int]:
    return sorted(set(numbers.flatten().tolist()))


def test_pictures_and_masks_are_cut_and_flipped_alike_anywhere_and_both_ways() -> None:
    masks = changed(np.arange(400))
    across, down = masks[:, 0, 1] - masks[:, 0, 0], masks[:, 1, 0] - masks[:, 0, 0]
    assert distinct(across) == [-1, 1]
    assert distinct(down) == [-20, 20]
    upper_left = masks.amin((1, 2))
    assert distinct(upper_left // 20) == list(range(5))
    assert distinct(upper_left % 20) == list(range(13))
    assert distinct(masks.amax((1, 2)) - upper_left) == [7 * 20 + 7]
    assert (changed(np.arange(400), vertical=False)[:, 1, 0] > changed(np.arange(400), vertical=False)[:, 0, 0]).all()


def test_a_sample_is_changed_alike_in_any_batch() -> None:
    whole = changed(np.arange(10))
    assert torch.equal(changed(np.arange(6, 10)), whole[6:])


def test_what_is_no_mask_or_too_small_is_told() -> None:
    images, masks = numbered(2)
    with pytest.raises(ConfigError, match=r"data\.augment=null"):
        CropFlip(8, True)((images, torch.zeros(2)), Draws(0, np.arange(2)))
    with pytest.raises(ConfigError, match=r"data\.augment\.size=12"):
        CropFlip(13, True)((images, masks), Draws(0, np.arange(2)))

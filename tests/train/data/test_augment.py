"""Augmentation: decided by each sample's position, however the batch is split."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from phalanx.train.data.augment import ShiftRotate
from phalanx.train.loading.fetch import PositionDataset
from phalanx.train.loading.order import SequentialOrder
from phalanx.train.loading.rng import Draws, integer, key
from phalanx.train.loading.shard import Span, split

IMAGES = torch.rand(64, 1, 28, 28, generator=torch.Generator().manual_seed(0))


class Pictures(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    def __getitems__(self, indices: NDArray[np.int64]) -> tuple[torch.Tensor, torch.Tensor]:
        where = torch.from_numpy(indices) % 64
        return IMAGES[where], where


def test_draws_depend_on_the_position_alone() -> None:
    whole = Draws(7, np.arange(100, 164))
    first, second = whole.uniform(3), whole.uniform(2)
    for start, stop in [(0, 1), (1, 22), (22, 43), (43, 64)]:
        part = Draws(7, np.arange(100 + start, 100 + stop))
        assert torch.equal(part.uniform(3), first[start:stop])
        assert torch.equal(part.uniform(2), second[start:stop])


def test_draws_are_uniform_and_unrelated() -> None:
    drawn = Draws(7, np.arange(20_000)).uniform(4, -1, 3)
    assert drawn.dtype == torch.float32
    assert drawn.min() >= -1
    assert drawn.max() <= 3
    columns = [drawn[:-1, i] for i in range(4)] + [drawn[1:, 0]]  # and the next position's
    related = torch.corrcoef(torch.stack(columns)) - torch.eye(5)
    assert related.abs().max() < 5 / 20_000**0.5
    counts = torch.histc(drawn, bins=100, min=-1, max=3)
    assert ((counts - 800) ** 2 / 800).sum() < 99 + 5 * (2 * 99) ** 0.5
    assert not torch.isin(drawn, Draws(8, np.arange(20_000)).uniform(4, -1, 3)[:100]).all()


def test_a_unit_draw_never_reaches_one() -> None:
    steps = Draws(3, np.arange(10_000)).uniform(10) * 2**24
    assert torch.equal(steps, steps.floor())  # whole 2^-24ths are exact in float32, so none is rounded up
    assert steps.max() < 2**24


@pytest.mark.parametrize(("micro_batch", "size"), [(8, 1), (8, 3), (None, 3), (None, 5), (1, 1)])
def test_augmented_batches_are_the_same_bits_however_they_are_split(micro_batch: int | None, size: int) -> None:
    source = PositionDataset(Pictures(), SequentialOrder(), ShiftRotate(2.0, 10.0), seed=3)
    images, labels = source.__getitems__(Span(640, 704))
    pieces = [
        source.__getitems__(Span(640 + span.start, 640 + span.stop))
        for rank in range(size)
        for span in split(64, micro_batch, rank, size)
    ]
    assert torch.equal(torch.cat([piece[0] for piece in pieces]), images)
    assert torch.equal(torch.cat([piece[1] for piece in pieces]), labels)


def test_a_shift_moves_pixels_and_a_rotation_turns_them() -> None:
    dot = torch.zeros(200, 1, 28, 28)
    dot[:, :, 13:15, 20:22] = 1.0
    rows, columns = torch.meshgrid(torch.arange(28.0), torch.arange(28.0), indexing="ij")

    def centres(images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        mass = images.sum((1, 2, 3))
        return (images[:, 0] * rows).sum((1, 2)) / mass - 13.5, (images[:, 0] * columns).sum((1, 2)) / mass - 13.5

    labels = torch.arange(200)
    shifted, kept = ShiftRotate(3.0, 0.0)((dot, labels), Draws(0, np.arange(200)))
    down, right = centres(shifted)
    assert torch.equal(kept, labels)
    assert 2.5 < down.abs().max() <= 3.01
    assert 2.5 < (right - 7).abs().max() <= 3.01
    turned, _ = ShiftRotate(0.0, 90.0)((dot, labels), Draws(0, np.arange(200)))
    down, right = centres(turned)
    angle = torch.rad2deg(torch.atan2(down, right))
    assert torch.allclose(torch.hypot(down, right), torch.tensor(7.0), atol=0.1)
    assert 80 < angle.abs().max() <= 91
    assert angle.min() < 0 < angle.max()


def test_nothing_moves_without_a_reason() -> None:
    images, _ = ShiftRotate(0.0, 0.0)((IMAGES, torch.arange(64)), Draws(0, np.arange(64)))
    assert torch.allclose(images, IMAGES, atol=1e-5)


def test_impossible_augmentation_is_refused() -> None:
    for shift, rotate in [(-1.0, 0.0), (0.0, 181.0), (0.0, -1.0)]:
        with pytest.raises(ValueError, match="degrees"):
            ShiftRotate(shift, rotate)


def test_one_integer_is_one_word() -> None:
    assert integer(5, 3, 2**62) == int(key(5, 3, 2**62)[0]) >> 1

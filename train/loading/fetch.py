"""Fetch the batch at given positions of the run, in the rank or in data workers."""

from collections.abc import Callable, Sequence
from operator import length_hint
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset, Subset

from phalanx.exit import user_error

from .batch import Augment, Batch, apply, collate_samples
from .order import Order, SequentialOrder
from .rng import DrawProbe, Draws, has_drawn, integer, seed_all
from .shard import Span

_AUGMENT = 2  # separates these seeds from other uses of the run's seed
_FETCH = 3
_SPLIT = (
    "draws from a global generator for a batch as a whole, and how samples are put into micro-batches depends on the "
    "number of ranks: so does what is drawn"
)
_INSTEAD = (
    "Draw in __getitem__ or in a list of samples from __getitems__, where each sample has a seed, or in data.augment from "
    "its `draws`; or set train.micro_batch"
)


class PositionDataset(Dataset[Batch]):
    """Fetches the samples at given positions of the run.

    A dataset with `__getitems__(indices)` is asked once a batch, with an array of int64. It answers with a list of
    samples or with the batch itself, of tensors or NumPy arrays. Any other dataset is asked sample by sample.

    Python's, NumPy's and torch's global generators are seeded by each sample's position. Seeding costs more than reading
    a sample in memory, so a batch is first fetched without; if the generators were used, it is fetched again with a seed a
    sample, and so are all later ones. Batches answered as a whole have one seed, by their first position, and `notes` warn
    if they draw.
    """

    def __init__(
        self, dataset: Dataset[Any], order: Order | SequentialOrder, augment: Augment | None, seed: int
    ) -> None:
        self.notes: list[str] = []  # warnings, until they are collected for the log
        self._dataset = dataset
        self._order = order
        self._augment = augment
        self._seed = seed
        self._by_batch = _by_batch(dataset)
        self._draws: bool | None = None  # whether samples draw; None before the first batch
        self._probe: DrawProbe | None = None
        self._augmented = False

    def __getitems__(self, positions: Span) -> Batch:
        """The batch of the samples at positions.start..positions.stop-1."""
        indices = self._order.indices(*positions)
        try:
            batch = (
                self._batch(indices, positions.start) if self._by_batch else self._collected(indices, positions.start)
            )
            return batch if self._augment is None else self._changed(self._augment, batch, positions)
        except Exception as error:
            if "sample" not in user_error.context_of(error):
                user_error.add_context(error, samples=indices.tolist())
            raise

    def indices(self, positions: Span) -> list[int]:
        """The indices of the samples at these positions."""
        found: list[int] = self._order.indices(*positions).tolist()
        return found

    def _collected(self, indices: NDArray[np.int64], position: int) -> Batch:
        """The batch of a dataset that is asked sample by sample."""
        if self._draws is not False:
            return collate_samples(self._each(self._one, indices, position))
        probe = self._probe = self._begun(_device())
        left = iter(indices.tolist())
        try:
            samples = [self._dataset[index] for index in left]
        except Exception as error:
            user_error.add_context(error, sample=int(indices[len(indices) - length_hint(left) - 1]))
            raise
        self._draws = probe.touched()
        return collate_samples(self._each(self._one, indices, position) if self._draws else samples)

    def _begun(self, device: torch.device) -> DrawProbe:
        if self._probe is None or self._probe.device != device:
            return DrawProbe(device)
        self._probe.begin()
        return self._probe

    def _batch(self, indices: NDArray[np.int64], position: int) -> Batch:
        """The batch of a dataset that is asked once a batch."""
        if self._draws:
            return collate_samples(self._each(self._one_of_list, indices, position))
        seed, device = self._seed_at(position), _device()
        seed_all(seed, device)
        found = self._dataset.__getitems__(indices)  # type: ignore[attr-defined]
        if not isinstance(found, list):
            self._note_chance(seed, device)
            return apply(found, lambda tensor: tensor)
        self._check_list(found, len(indices))
        self._draws = has_drawn(seed, device)
        return collate_samples(self._each(self._one_of_list, indices, position) if self._draws else found)

    def _each(self, ask: Callable[[NDArray[np.int64]], Any], indices: NDArray[np.int64], position: int) -> list[Any]:
        """Fetch sample by sample, each with its own seed; the first time also find out whether they draw."""
        device, watches, samples = _device(), self._draws is None, []
        for i in range(len(indices)):
            seed = self._seed_at(position + i)
            seed_all(seed, device)
            with user_error.context(sample=int(indices[i])):
                samples.append(ask(indices[i : i + 1]))
            if watches:
                self._draws = has_drawn(seed, device) or bool(self._draws)
        return samples

    def _one(self, index: NDArray[np.int64]) -> Any:
        return self._dataset[int(index[0])]

    def _one_of_list(self, index: NDArray[np.int64]) -> Any:
        (sample,) = self._dataset.__getitems__(index)  # type: ignore[attr-defined]
        return sample

    def _changed(self, augment: Augment, batch: Batch, positions: Span) -> Batch:
        """The augmented batch. Global generators have the last sample's seed; an augmentation should use `draws`."""
        seed, device = self._seed_at(positions.stop - 1), _device()
        seed_all(seed, device)
        batch = augment(batch, Draws(integer(self._seed, _AUGMENT), np.arange(*positions, dtype=np.int64)))
        if not self._augmented and has_drawn(seed, device):
            self.notes.append(f"{type(augment).__name__} {_SPLIT}. {_INSTEAD}")
        self._augmented = True
        return batch

    def _note_chance(self, seed: int, device: torch.device) -> None:
        """Add a note if the first batch that the dataset collated itself used a global generator."""
        if self._draws is None and has_drawn(seed, device):
            self.notes.append(f"{type(self._dataset).__name__}.__getitems__ {_SPLIT}. {_INSTEAD}")
        self._draws = False

    def _check_list(self, found: Sequence[Any], samples: int) -> None:
        if len(found) != samples:
            kind = type(self._dataset).__name__
            raise ValueError(
                f"{kind}.__getitems__ answered {samples} indices with a list of {len(found)}. A list holds one "
                "sample an index; a batch that is put together already is a tuple, a dict or a tensor"
            )

    def _seed_at(self, position: int) -> int:
        return integer(self._seed, _FETCH, position)


class WithNotes(Dataset[tuple[Batch, list[str]]]):
    """The batches of a source, each with its new notes."""

    def __init__(self, source: PositionDataset) -> None:
        self._source = source

    def __getitems__(self, positions: Span) -> tuple[Batch, list[str]]:
        batch = self._source.__getitems__(positions)
        notes, self._source.notes = self._source.notes, []
        return batch, notes


def _device() -> torch.device:
    """The device whose generators samples may draw from: the current GPU if CUDA is initialised, else the CPU."""
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")


def _by_batch(dataset: Dataset[Any]) -> bool:
    """Whether `dataset` fetches whole batches. A Subset of one that does not only loops over its samples."""
    if isinstance(dataset, Subset):
        return _by_batch(dataset.dataset)
    return hasattr(dataset, "__getitems__")

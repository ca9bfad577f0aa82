"""Fetch the batch at given positions of the run, in the rank or in data workers."""

from collections.abc import Callable, Sequence
from operator import length_hint
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import Dataset, Subset

from phalanx.exit import user_error
from phalanx.exit.codes import ConfigError

from .asked import Asked
from .batch import Augment, Batch, apply
from .collation import DefaultCollation, UserCollation
from .order import Indices, Positions
from .rng import DrawProbe, Draws, has_drawn, integer, key, seed_all
from .shard import Span

_AUGMENT = 2  # separates these seeds from other uses of the run's seed
_FETCH = 3
_COLLATE = 6
_PARTNER = 7
_SPLIT = (
    "draws from a global generator for a batch as a whole, and how samples are put into micro-batches depends on the "
    "number of ranks: so does what is drawn"
)
_INSTEAD = (
    "Draw in __getitem__ or in a list of samples from __getitems__, where each sample has a seed, or in data.augment from "
    "its `draws`, or in data.collate from an argument of that name; or set train.micro_batch"
)


def has_getitem(dataset: Any) -> bool:
    """Whether it has a __getitem__ that is not that of torch's base class, which only raises."""
    return getattr(type(dataset), "__getitem__", Dataset.__getitem__) is not Dataset.__getitem__


def _has_samples(dataset: Dataset[Any]) -> bool:
    """Whether samples can be had one by one, also of a set that fetches batches."""
    while isinstance(dataset, Subset):
        dataset = dataset.dataset
    return has_getitem(dataset)


class _Whole(NamedTuple):
    """What a data set answered that puts its batches together itself."""

    batch: Batch


class _Partners(NamedTuple):
    """Samples from anywhere in the global batch, one for each of a micro-batch, and their indices."""

    samples: list[Any] | _Whole
    indices: Indices


class PositionDataset(Dataset[Batch]):
    """Fetches the samples at given positions of the run.

    A dataset with `__getitems__(indices)` is asked once a batch, with an array of int64. It answers with a list of
    samples or with the batch itself, of tensors or NumPy arrays. Any other dataset is asked sample by sample, and so is one
    that would answer with the batch itself where there is a `collate` of the user's for its samples. A list of samples
    becomes a batch by that, or by torch's default collation.

    Python's, NumPy's and torch's global generators are seeded by each sample's position. Seeding costs more than reading
    a sample in memory, so a batch is first fetched without; if the generators were used, it is fetched again with a seed a
    sample, and so are all later ones. Batches answered as a whole have one seed, by their first position, and `notes` warn
    if they draw.
    """

    def __init__(
        self,
        dataset: Dataset[Any],
        order: Positions,
        augment: Augment | None,
        seed: int,
        collate: UserCollation | None = None,
        whole: Callable[[int], Span] | None = None,
    ) -> None:
        """`whole` gives the global batch that a position lies in; None where each batch is one, as in an evaluation."""
        self.notes: list[str] = []  # warnings, until they are collected for the log
        self._dataset = dataset
        self._order = order
        self._augment = augment
        self._augment_asks = Asked.by(augment, given=2)
        self._collate = collate
        self._default = DefaultCollation(type(dataset).__name__)
        self._wants_partners = "partners" in self._augment_asks | (collate.asked if collate else set())
        self._whole = whole
        self._seed = seed
        self._by_batch = _by_batch(dataset)
        self._draws: bool | None = None  # whether samples draw; None before the first batch
        self._probe: DrawProbe | None = None
        self._warned = set[str]()  # what has made its first batch

    def __getitems__(self, span: Span) -> Batch:
        """The batch of the samples at positions span.start..span.stop-1; None where a collate has left nothing of them."""
        indices = self._order.indices(*span)
        try:
            samples = self._fetched(indices, np.arange(*span, dtype=np.int64))
            mates = self._partners(span) if self._wants_partners else None
            batch = self._collated(samples, indices, span, mates)
            return batch if self._augment is None or batch is None else self._changed(batch, span, mates)
        except Exception as error:
            if "sample" not in user_error.context_of(error):
                user_error.add_context(error, samples=indices.tolist())
            raise

    @property
    def collate(self) -> UserCollation | None:
        return self._collate

    def indices(self, positions: Span) -> list[int]:
        """The indices of the samples at these positions."""
        found: list[int] = self._order.indices(*positions).tolist()
        return found

    def _fetched(self, indices: Indices, positions: Indices) -> list[Any] | _Whole:
        return self._batch(indices, positions) if self._by_batch else self._samples(indices, positions)

    def _collated(
        self, samples: list[Any] | _Whole, indices: Indices, span: Span, mates: "_Partners | None" = None
    ) -> Batch:
        if isinstance(samples, _Whole):
            if self._collate is not None:
                kind = type(self._dataset).__name__
                raise ConfigError(
                    f"{self._collate.name} has nothing to do: {kind}.__getitems__ answers with the batch itself. Return a "
                    "list of samples from it, or leave the collate out"
                )
            return samples.batch
        if self._collate is None:
            return self._default(samples, indices.tolist())
        seed, device = integer(self._seed, _COLLATE, span.stop - 1), current_device()
        seed_all(seed, device)
        partners = None if mates is None else mates.samples
        batch = self._collate(samples, **self._further(self._collate.asked, _COLLATE, span, partners))
        if self._whole is not None:
            self._note_split(self._collate.name, seed, device)
        return batch

    def _samples(self, indices: Indices, positions: Indices) -> list[Any]:
        """The samples of a dataset that is asked sample by sample."""
        if self._draws is not False:
            return self._each(self._one, indices, positions)
        probe = self._probe = self._begun(current_device())
        left = iter(indices.tolist())
        try:
            samples = [self._dataset[index] for index in left]
        except Exception as error:
            user_error.add_context(error, sample=int(indices[len(indices) - length_hint(left) - 1]))
            raise
        self._draws = probe.touched()
        return self._each(self._one, indices, positions) if self._draws else samples

    def _begun(self, device: torch.device) -> DrawProbe:
        if self._probe is None or self._probe.device != device:
            return DrawProbe(device)
        self._probe.begin()
        return self._probe

    def _batch(self, indices: Indices, positions: Indices) -> list[Any] | _Whole:
        """The answer of a dataset that is asked once a batch."""
        if self._draws:
            return self._each(self._one_of_list, indices, positions)
        seed, device = self._seed_at(int(positions[0])), current_device()
        seed_all(seed, device)
        found = self._dataset.__getitems__(indices)  # type: ignore[attr-defined]
        if not isinstance(found, list):
            if self._collate is not None and _has_samples(self._dataset):
                self._by_batch = False
                return self._samples(indices, positions)
            self._note_chance(seed, device)
            return _Whole(apply(found, lambda tensor: tensor))
        self._check_list(found, len(indices))
        self._draws = has_drawn(seed, device)
        return self._each(self._one_of_list, indices, positions) if self._draws else found

    def _each(self, ask: Callable[[Indices], Any], indices: Indices, positions: Indices) -> list[Any]:
        """Fetch sample by sample, each with its own seed; the first time also find out whether they draw."""
        device, watches, samples = current_device(), self._draws is None, []
        for i, position in enumerate(positions.tolist()):
            seed = self._seed_at(position)
            seed_all(seed, device)
            with user_error.context(sample=int(indices[i])):
                samples.append(ask(indices[i : i + 1]))
            if watches:
                self._draws = has_drawn(seed, device) or bool(self._draws)
        return samples

    def _one(self, index: Indices) -> Any:
        return self._dataset[int(index[0])]

    def _one_of_list(self, index: Indices) -> Any:
        (sample,) = self._dataset.__getitems__(index)  # type: ignore[attr-defined]
        return sample

    def _partners(self, span: Span) -> "_Partners":
        """For each sample the one that a random permutation of the whole batch puts in its place, with its own seed."""
        whole = self._whole_of(span)
        order = key(self._seed, _PARTNER, np.arange(*whole, dtype=np.uint64)).argsort()
        chosen = order[span.start - whole.start : span.stop - whole.start]
        indices = self._order.indices(*whole)[chosen]
        return _Partners(self._fetched(indices, whole.start + chosen.astype(np.int64)), indices)

    def _whole_of(self, span: Span) -> Span:
        return span if self._whole is None else self._whole(span.start)

    def _further(self, asked: Asked, use: int, span: Span, partners: Any) -> dict[str, Any]:
        """The further arguments that a callable asks for."""
        positions = np.arange(*span, dtype=np.int64)
        found: dict[str, Callable[[], Any]] = {
            "positions": lambda: positions,
            "whole": lambda: self._whole_of(span),
            "draws": lambda: Draws(integer(self._seed, use), positions),
            "partners": lambda: partners,
        }
        return {name: found[name]() for name in asked}

    def _changed(self, batch: Batch, span: Span, mates: "_Partners | None") -> Batch:
        """The augmented batch. Global generators have the last sample's seed; an augmentation should use `draws`."""
        assert self._augment is not None
        asks = mates is not None and "partners" in self._augment_asks
        partners = self._collated(mates.samples, mates.indices, span, mates) if asks and mates else None
        seed, device = self._seed_at(span.stop - 1), current_device()
        seed_all(seed, device)
        draws = Draws(integer(self._seed, _AUGMENT), np.arange(*span, dtype=np.int64))
        batch = self._augment(batch, draws, **self._further(self._augment_asks, _AUGMENT, span, partners))
        self._note_split(type(self._augment).__name__, seed, device)
        return batch

    def _note_split(self, name: str, seed: int, device: torch.device) -> None:
        """Add a note if the first batch of an augmentation or a collate drew from a global generator."""
        if name not in self._warned and has_drawn(seed, device):
            self.notes.append(f"{name} {_SPLIT}. {_INSTEAD}")
        self._warned.add(name)

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


def current_device() -> torch.device:
    """The device whose generators samples may draw from: the current GPU if CUDA is initialised, else the CPU."""
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")


def _by_batch(dataset: Dataset[Any]) -> bool:
    """Whether `dataset` fetches whole batches. A Subset of one that does not only loops over its samples."""
    if isinstance(dataset, Subset):
        return _by_batch(dataset.dataset)
    return hasattr(dataset, "__getitems__")

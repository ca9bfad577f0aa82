"""What a stream turns out to be when its first samples are read, on each rank for itself."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..data_hash import SAMPLES, first_samples, hash_first_samples, random_states_kept
from .parts import Parts
from .reader import Share, StreamPosition, copied

_TOLD = 4  # samples that tell parts apart


@dataclass(frozen=True)
class Probe:
    """`first` are hashes of the first samples; `repeats`: a second pass gives the same ones.

    `state` is the set's state_dict() amid them, None where there is none, or where what follows it is not what followed,
    as with a shuffle buffer that a state leaves out; `loses` says that it was that.
    """

    first: list[str]
    repeats: bool
    state: Any = None
    loses: bool = False


def probe(dataset: Any) -> Probe:
    """Reads copies of `dataset`."""
    first = hash_first_samples(dataset)
    repeats = hash_first_samples(dataset) == first
    if not all(callable(getattr(dataset, name, None)) for name in ("state_dict", "load_state_dict")):
        return Probe(first, repeats)
    taken = len(first) // 2
    _, state = first_samples(dataset, None, taken, keeps_state=True)
    follows = hash_first_samples(dataset, (state, taken), SAMPLES - taken)
    if not repeats or follows == first[taken:]:
        return Probe(first, repeats, state)
    return Probe(first, repeats, loses=True)


def are_apart(firsts: Sequence[Sequence[str]]) -> bool:
    """Whether parts of which these are the first samples each give samples, and others than the rest."""
    return all(firsts) and len({tuple(first) for first in firsts}) == len(firsts)


@dataclass(frozen=True)
class FirstOfParts:
    """Hashes of the first samples of each part; no more than one that is empty, which says that it cannot be cut so."""

    parts: Parts

    def __call__(self, dataset: Any) -> list[list[str]]:
        found: list[list[str]] = []
        for part in range(self.parts.count):
            try:
                found.append(hash_first_samples(dataset, None, _TOLD, self.parts, part))
            except ValueError:  # as a webdataset does where a worker has no file
                found.append([])
            if not found[-1]:
                break
        return found


@dataclass(frozen=True)
class Counted:
    """Of an evaluation set: the samples of parts, up to the most that were asked for, and hashes of the first of all."""

    samples: dict[int, int]
    first: list[str]


@dataclass(frozen=True)
class Count:
    """Counts the samples of one pass over each of the parts `own`, up to `most` in each."""

    seed: int
    parts: Parts
    own: Sequence[int]
    most: int | None

    def __call__(self, dataset: Any) -> Counted:
        with random_states_kept():
            samples = {part: self._of_part(dataset, part) for part in self.own}
        return Counted(samples, hash_first_samples(dataset))

    def _of_part(self, dataset: Any, part: int) -> int:
        reader = self.parts.reader(dataset, part, Share(), self.seed, StreamPosition(), copied=copied)
        return sum(1 for _ in reader.samples_of_pass(self.most))

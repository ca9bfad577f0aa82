"""What a stream turns out to be when its first samples are read, on each rank for itself."""

from dataclasses import dataclass
from typing import Any

from ..data_hash import SAMPLES, first_samples, hash_first_samples, random_states_kept
from .reader import Share, StreamPosition, StreamReader, copied


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


@dataclass(frozen=True)
class Counted:
    """Of an evaluation set: how many samples it has, up to the most that were asked for, and hashes of the first ones."""

    samples: int
    first: list[str]


@dataclass(frozen=True)
class Count:
    """Counts the samples of one pass over a stream, up to `most`."""

    seed: int
    most: int | None

    def __call__(self, dataset: Any) -> Counted:
        with random_states_kept():
            reader = StreamReader(copied(dataset), Share(), self.seed, StreamPosition())
            samples = sum(1 for _ in reader.samples_of_pass(self.most))
        return Counted(samples, hash_first_samples(dataset))

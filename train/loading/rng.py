"""Counter-based random numbers: a pure function of a seed and a position, not of what was drawn before.

The mixer is the finalizer of SplitMix64 (Steele, Lea & Flood 2014, with the constants of Stafford's variant 13): a
bijection of 64 bits in which every input bit reaches every output bit.
"""

import random

import numpy as np
import torch
from numpy.typing import NDArray

Words = NDArray[np.uint64]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MASK = 2**64 - 1
_PROBE = 1  # the probe's seed; what is drawn under it is drawn again under the run's


def mix(words: Words) -> Words:
    """Scramble 64-bit words, elementwise and one to one."""
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))


def key(seed: int, *path: int | Words) -> Words:
    """One 64-bit word for `seed` and each combination of `path` (integers or arrays, which broadcast), shape (…,)."""
    words = np.array([_mix_one(seed + int(_GOLDEN))], np.uint64)
    for part in path:
        words = mix((words ^ np.asarray(part, np.uint64)) + _GOLDEN)
    return words


def integer(seed: int, *path: int) -> int:
    """The same as `key`, as one Python integer of 63 bits, fit to seed a generator."""
    word = _mix_one(seed + int(_GOLDEN))
    for part in path:
        word = _mix_one((word ^ part) + int(_GOLDEN))
    return word >> 1


def _mix_one(word: int) -> int:
    word &= _MASK
    word = (word ^ (word >> 30)) * 0xBF58476D1CE4E5B9 & _MASK
    word = (word ^ (word >> 27)) * 0x94D049BB133111EB & _MASK
    return word ^ (word >> 31)


class Draws:
    """Random numbers of a batch, one independent stream a sample, decided by each sample's position in the run."""

    def __init__(self, seed: int, positions: NDArray[np.int64]) -> None:
        self._words = key(seed, positions.astype(np.uint64))[:, None]

    def uniform(self, count: int, low: float = 0.0, high: float = 1.0) -> torch.Tensor:
        """Uniform numbers from `low` up to `high`, shape (samples, count), float32. A second call draws on."""
        words = mix(self._words + np.arange(1, count + 2, dtype=np.uint64) * _GOLDEN)
        self._words = words[:, count:]
        unit = (words[:, :count] >> np.uint64(40)).astype(np.float32) * np.float32(2.0**-24)
        return torch.from_numpy(unit * np.float32(high - low) + np.float32(low))


def seed_all(seed: int, device: torch.device) -> None:
    """Seed the global generators that dropout, augmentation and users' code draw from: Python's, NumPy's and torch's.

    Done before every use of them, so that no number depends on what was drawn before, on another rank or before a
    restart. torch's are the CPU's and the rank's own GPU's.
    """
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.default_generators[device.index].manual_seed(seed)


def has_drawn(seed: int, device: torch.device) -> bool:
    """Whether a generator was used since `seed_all(seed, device)`. Leaves them seeded again and one number on.

    Compares the next number of each, so a draw whose state was restored is not seen.
    """
    found = _next(device)
    seed_all(seed, device)
    return found != _next(device)


class DrawProbe:
    """Detects use of the global generators between `begin` and `touched`.

    It uses the same seed each time, so the expected next numbers are known without seeding again.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.begin()
        self._untouched = _next(device)
        self.begin()

    def begin(self) -> None:
        seed_all(_PROBE, self.device)

    def touched(self) -> bool:
        """Leaves the generators one number on."""
        return _next(self.device) != self._untouched


def _next(device: torch.device) -> tuple[float, float, bytes, bytes]:
    """What comes next of each generator; torch's tell by their states, which are quicker to read than a number."""
    gpu = torch.cuda.default_generators[device.index].get_state().numpy().tobytes() if device.type == "cuda" else b""
    return random.random(), np.random.random_sample(), torch.default_generator.get_state().numpy().tobytes(), gpu

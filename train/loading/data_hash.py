"""Hash a data set, to notice that it changed since a run's first start."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from phalanx.exit.codes import ConfigError
from phalanx.run_folder.names import DRAWS

from .fetch import has_getitem
from .rng import seed_all
from .streams.parts import WHOLE, Parts
from .streams.reader import Share, StreamPosition, copied, is_stream

SAMPLES = 16  # that are hashed, of a larger data set


def hash_data(dataset: Any) -> str:
    """The dataset's own `fingerprint()`, else a sha256 (hex) of its length and of up to `SAMPLES` spread samples.

    Of a stream it is of the first samples of a copy.

    Each sample is drawn with the global random states of Python, NumPy and torch (CPU) seeded, and these are as
    before afterwards. Raises ConfigError where that method returns no string, or where there is neither the method nor a
    length.
    """
    own = getattr(dataset, "fingerprint", None)
    if callable(own):
        return _own(dataset, own())
    if is_stream(dataset):
        return hashlib.sha256("".join(hash_first_samples(dataset)).encode()).hexdigest()
    if not hasattr(dataset, "__len__"):
        raise ConfigError(f"{type(dataset).__name__} has no length: give it a method `fingerprint() -> str`.")
    length = len(dataset)
    digest = hashlib.sha256()
    _feed(digest, length)
    with random_states_kept():
        for index in _spread(length):
            seed_all(index, torch.device("cpu"))
            _feed(digest, _sample(dataset, index))
    return digest.hexdigest()


def hash_data_twice(dataset: Any) -> str:
    """As `hash_data`, hashed twice: `DRAWS` if the two differ, as of a dataset with a random generator of its own."""
    first = hash_data(dataset)
    return first if callable(getattr(dataset, "fingerprint", None)) or hash_data(dataset) == first else DRAWS


def _sample(dataset: Any, index: int) -> Any:
    """Sample `index`, of a data set that may have `__getitems__` alone."""
    return dataset[index] if has_getitem(dataset) else dataset.__getitems__(np.array([index]))


def hash_first_samples(
    dataset: Any, state: Any = None, count: int = SAMPLES, parts: Parts = WHOLE, part: int = 0
) -> list[str]:
    """A sha256 (hex) for each of the first `count` samples of a copy of a stream, or of one of its `parts`.

    With `state`, a set's own state and the number of samples taken before it, of those that follow.
    """
    return first_samples(dataset, state, count, parts, part)[0]


def first_samples(
    dataset: Any, state: Any, count: int, parts: Parts = WHOLE, part: int = 0, *, keeps_state: bool = False
) -> tuple[list[str], Any]:
    """As `hash_first_samples`, and the set's own state after them."""
    found: list[str] = []
    with random_states_kept():
        own, taken = (None, 0) if state is None else state
        position = StreamPosition(0, taken, taken, own)
        reader = parts.reader(dataset, part, Share(), 0, position, keeps_state=keeps_state, copied=copied)
        for sample in reader.samples_of_pass(count):
            digest = hashlib.sha256()
            _feed(digest, sample)
            found.append(digest.hexdigest())
        return found, reader.position().state


def _own(dataset: Any, fingerprint: object) -> str:
    if not isinstance(fingerprint, str):
        kind = type(fingerprint).__name__
        raise ConfigError(f"{type(dataset).__name__}.fingerprint() returned {kind}: it must return a string.")
    return fingerprint


def _spread(length: int) -> list[int]:
    """Up to `SAMPLES` indices, evenly spaced, the first and the last among them."""
    if length <= SAMPLES:
        return list(range(length))
    return [index * (length - 1) // (SAMPLES - 1) for index in range(SAMPLES)]


@contextmanager
def random_states_kept() -> Iterator[None]:
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])


def _feed(digest: Any, value: object) -> None:
    """Hash `value`; every part says its kind and its size, so that no two values share one stream of bytes."""
    if isinstance(value, Mapping):
        _feed(digest, ("mapping", *(pair for key in sorted(value, key=repr) for pair in (key, value[key]))))
    elif isinstance(value, list | tuple):
        _put(digest, "sequence", str(len(value)).encode())
        for item in value:
            _feed(digest, item)
    elif isinstance(value, torch.Tensor):
        _feed_tensor(digest, value)
    elif hasattr(type(value), "__array_interface__"):  # NumPy arrays and scalars, PIL images
        _feed_array(digest, np.asarray(value))
    elif isinstance(value, str):
        _put(digest, "str", value.encode("utf-8", "surrogatepass"))
    elif isinstance(value, bytes | bytearray):
        _put(digest, "bytes", bytes(value))
    elif value is None or isinstance(value, int | float | complex):
        _put(digest, "literal", repr(value).encode())
    else:
        _put(digest, "object", type(value).__qualname__.encode())


def _feed_tensor(digest: Any, tensor: torch.Tensor) -> None:
    try:
        packed = tensor.cpu().clone(memory_format=torch.contiguous_format)  # even one element can have a stride
        octets = packed.reshape(-1).view(torch.uint8).numpy().tobytes()
    except RuntimeError:  # sparse, nested, quantized and meta tensors have no plain bytes
        return _put(digest, "object", type(tensor).__qualname__.encode())
    _put(digest, f"tensor {tensor.dtype} {tuple(tensor.shape)}", octets)


def _feed_array(digest: Any, array: np.ndarray[Any, Any]) -> None:
    if array.dtype.hasobject:  # its bytes are addresses
        return _feed(digest, ("object array", array.shape, array.ravel().tolist()))
    _put(digest, f"array {array.dtype.str} {array.shape}", array.tobytes())


def _put(digest: Any, kind: str, octets: bytes) -> None:
    digest.update(f"{kind} {len(octets)}:".encode())
    digest.update(octets)

"""Make a batch of a list of samples: by the user's callable, or by torch's default collation."""

import inspect
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch.utils.data._utils.collate import collate, default_collate_fn_map

from phalanx.exit import user_error
from phalanx.exit.codes import ConfigError
from phalanx.targets.kinds import described
from phalanx.targets.signature import check_signature

from .asked import Asked
from .batch import Batch, apply
from .ragged import explain

_NO_BATCH = (bool, int, float, complex, str, bytes, set, frozenset, Iterator)


def collate_samples(samples: Sequence[Any]) -> Batch:
    """torch's default collation, but never into shared memory, in a worker neither: see tensor_packing.py."""
    return collate(samples, collate_fn_map=_COLLATE)


class DefaultCollation:
    """torch's default collation of the samples of a data set called `name`."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __call__(self, samples: Sequence[Any], indices: Sequence[int]) -> Batch:
        """Raises ConfigError for samples that do not stack, naming the field and two samples by their `indices`."""
        try:
            return collate_samples(samples)
        except (RuntimeError, TypeError, KeyError, AttributeError, ValueError) as error:
            if (told := explain(samples, indices, self._name)) is None:
                raise
            raise ConfigError(told) from error


class UserCollation:
    """A callable of the user's that makes a batch of a list of samples; `where` names it in messages."""

    def __init__(self, function: Callable[..., Any], where: str) -> None:
        self.asked = Asked.by(function, given=1)
        check_signature(function, "samples", named=self.asked)
        self._function = function
        self._where = where

    @property
    def line(self) -> str:
        """What makes the batches, and where it is defined."""
        return f"{self._where}, {_line(self._function)}"

    @property
    def name(self) -> str:
        function: Any = self._function
        return f"{self._where} ({_named(function)})"

    def __call__(self, samples: Sequence[Any], **asked: Any) -> Batch:
        """The batch; None where nothing is left of the samples, as all are None, or what was made has no item.

        Raises ConfigError where the callable returns nothing though there are samples.
        """
        if all(sample is None for sample in samples):
            return None
        batch = self._function(samples, **asked)
        if batch is None:
            raise ConfigError(
                f"{self._where} returned nothing for {len(samples)} samples: {_line(self._function)} has no `return` on "
                "the way that it took. Return the batch, or an empty list where none of the samples is to be used"
            )
        if isinstance(batch, list | tuple | dict) and not batch:
            return None
        if isinstance(batch, _NO_BATCH) or callable(batch):
            once = " It can be read once: write list(…) around it." if isinstance(batch, Iterator) else ""
            raise ConfigError(
                f"{self._where} returned {described(batch)} for {len(samples)} samples, which is no batch: "
                f"{_line(self._function)}.{once} Return tensors, or a list, tuple or dict that holds them"
            )
        return apply(batch, lambda tensor: tensor)


def tell_who_made(error: Exception, collate: UserCollation | None) -> Exception:
    """An exception of a task that got a batch of `collate`'s, with the line of that."""
    if collate is None:
        return error
    if isinstance(error, ConfigError):
        return ConfigError(f"{error}. The batch is made by {collate.line}", agreed=error.agreed)
    user_error.add_context(error, collate=collate.line)
    return error


def _named(function: Any) -> str:
    function = function.func if isinstance(function, partial) else function
    return getattr(function, "__qualname__", type(function).__qualname__)


def _line(function: Any) -> str:
    """The file and line at which a callable is defined, such as "pad at mypkg/data.py:31"."""
    name, function = _named(function), function.func if isinstance(function, partial) else function
    function = inspect.unwrap(function if inspect.isroutine(function) else type(function).__call__)
    code = getattr(function, "__code__", None)
    return name if code is None else f"{name} at {code.co_filename}:{code.co_firstlineno}"


def _stacked(tensors: Sequence[torch.Tensor], *, collate_fn_map: object) -> torch.Tensor:
    return torch.stack(tuple(tensors))


def _numbers(numbers: Sequence[int], *, collate_fn_map: object) -> torch.Tensor:
    """By NumPy, which converts a list of integers in a quarter of torch's time; other values go to torch."""
    found = np.array(numbers)
    return torch.from_numpy(found) if found.dtype == np.int64 else torch.tensor(numbers)


def _columns(samples: Sequence[tuple[Any, ...]], *, collate_fn_map: object) -> Batch:
    """Tuples, without torch's two extra passes. A namedtuple keeps its type, others become lists."""
    try:
        columns = list(zip(*samples, strict=True))
    except ValueError:
        raise RuntimeError("each element in list of batch should be of equal size") from None
    kind, found = type(samples[0]), [collate_samples(column) for column in columns]
    return kind(*found) if hasattr(kind, "_fields") else found


_COLLATE: dict[type | tuple[type, ...], Callable[..., Any]] = {
    **default_collate_fn_map,
    torch.Tensor: _stacked,
    int: _numbers,
    tuple: _columns,
}

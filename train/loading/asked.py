"""What a collate or an augmentation is given beside its samples: what its signature has a parameter for."""

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

NAMES = ("positions", "whole", "draws", "partners")


class Asked(frozenset[str]):
    """The further arguments that a callable asks for by the names of its parameters.

    - `positions`: the positions of the batch's samples in the run, int64, shape (samples,)
    - `whole`: the positions of the whole global batch, over all ranks and micro-batches, as a Span(start, stop)
    - `draws`: random numbers, a stream a sample, decided by its position alone
    - `partners`: another sample of the whole batch for each one: a random permutation of the batch says which, so that
      mixup mixes across ranks as on one. A collate gets a list of samples, an augmentation a batch.
    """

    @classmethod
    def by(cls, function: Callable[..., Any] | None, given: int) -> "Asked":
        """Of a callable that is called with `given` arguments in any case. What a partial has set is not asked for."""
        if function is None:
            return cls()
        try:
            names = list(inspect.signature(function).parameters)[given:]
        except (ValueError, TypeError):  # written in C
            return cls()
        bound = function.keywords if isinstance(function, partial) else {}
        return cls(name for name in names if name in NAMES and name not in bound)

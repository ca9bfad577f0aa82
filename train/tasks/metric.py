"""Metrics that are no ratio of sums: F1, AUC, mAP, BLEU, a correlation."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

from ..sinks.shown import Shown


class Update:
    """The arguments of a metric's `update` for one batch. A task's `ratios` returns it under the metric's name."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.args = args
        self.kwargs = kwargs


class Metric(ABC):
    """One number, or several by name, over all samples of an evaluation. A task's `metrics` makes it anew for each.

    On each rank `update` gets what its batches bring, which are consecutive ones, in the order of the samples. At the end
    `merge` on rank 0 gets the metrics of the other ranks, in the order of the samples, too, and then `compute` is
    called there. All three run without autograd and autocast, and with seeds of their own.

    So the bits are the same for any number of ranks and any eval.batch where the state does not tell how the samples were
    cut into parts: whole numbers that are added, and values that are kept one after the other until `compute`. A sum of
    floats tells: keep the values, or give sum and count to a `Ratio`, which is exact for any number of ranks.

    The state, which is all attributes, travels to rank 0 as plain data, never as a pickle: tensors, arrays, numbers,
    text, None, and lists, tuples, sets and dicts of these. It takes memory on each rank for its own samples, and on rank
    0 for all. Tensors stay on the device that `update` found them on.
    """

    only_shown: ClassVar[bool] = False
    """Whether it is there for `show` alone: `compute` gives {}, and where log.shown=0 nothing updates it. A batch that
    brings no `Update` for it is fine."""

    @abstractmethod
    def update(self, *args: Any, **kwargs: Any) -> None:
        """Count a batch; the arguments are those of the `Update` that the task's `ratios` returned for it."""

    @abstractmethod
    def merge(self, others: Sequence[Self]) -> None:
        """Take in what `others` have counted, each of the samples after those of the one before, and after one's own.

        Some have met no batch, and are as `metrics` made them.
        """

    @abstractmethod
    def compute(self) -> float | Mapping[str, float]:
        """The value: a number, or a tensor of one; or several by name, always the same names, for `metric/name`.

        What is not defined for the samples, such as the AUC of one class, is math.nan. Called on rank 0 alone, once.
        """

    def show(self) -> Shown | None:
        """What to show of all samples under the metric's name, such as an Image; None for nothing.

        Called on rank 0 alone, after `compute`. What takes time to draw is drawn later: see `Image`.
        """
        return None

    def state_dict(self) -> dict[str, Any]:
        """The state that is sent to rank 0: all attributes. Override it if some are no plain data."""
        return dict(vars(self))

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Load another rank's `state_dict`. Called on a new metric."""
        vars(self).update(state)

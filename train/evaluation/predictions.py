"""The predictions of an evaluation's first samples, by their index in the data set."""

import math
import numbers
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from phalanx.exit import user_error
from phalanx.exit.codes import ConfigError

from ..distributed.plain_data import gather_on_rank_zero, pack, unpack
from ..distributed.world import World
from ..loading.batch import Batch, shapes
from ..loading.shard import Span
from ..tasks.task import Task


class Predictions:
    """Keeps what the task predicts of the samples with an index below `limit`."""

    def __init__(self, task: Task, limit: int) -> None:
        if limit and type(task).predictions is Task.predictions:
            raise ConfigError(
                f"eval.predictions={limit} keeps predictions, and {type(task).__name__} has no method that gives them. "
                "Write predictions(self, model, batch), which returns a dict a sample, or type eval.predictions=0"
            )
        self._task = task
        self._limit = limit
        self._rows: list[dict[str, Any]] = []

    def wants(self, span: Span) -> bool:
        """Whether the batch of these indices holds a sample that is kept."""
        return span.start < self._limit

    def take(self, model: nn.Module, batch: Batch, span: Span) -> None:
        """Predict the samples of a batch, which is on the device. Raises ConfigError for what is no row a sample."""
        with user_error.context(batch=shapes(batch)):
            found: object = self._task.predictions(model, batch)
        if not isinstance(found, Sequence) or not all(isinstance(row, Mapping) for row in found):
            raise ConfigError(
                f"predictions() of the task gave a {type(found).__name__}, and not a list of dicts, one a sample, such as "
                '[{"prediction": 3, "score": 0.9}, …]'
            )
        if len(found) != span.stop - span.start:
            raise ConfigError(
                f"predictions() of the task gave {len(found)} rows for the {span.stop - span.start} samples with the "
                f"indices {span.start} to {span.stop - 1}. One row a sample tells which is which; where a collate leaves "
                "samples out, type eval.predictions=0"
            )
        rows = zip(range(*span), found, strict=True)
        self._rows += [
            {"index": i, **{str(k): _plain(v) for k, v in row.items()}} for i, row in rows if i < self._limit
        ]

    def gathered(self, world: World) -> list[dict[str, Any]]:
        """On rank 0 those of all ranks, by index; none on others. All ranks call it."""
        if not self._limit:
            return []
        packed = gather_on_rank_zero(pack(self._rows, "the predictions of the task"), world)  # all ranks take part
        rows = [row for each in packed for row in unpack(each, torch.device("cpu"))]
        return sorted(rows, key=lambda row: int(row["index"]))


def _plain(value: Any) -> Any:
    """As JSON holds it: tensors and arrays as numbers and lists, and null for what is not finite."""
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu().tolist()
    elif isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, str | numbers.Integral) or value is None:
        return value
    raise ConfigError(
        f"predictions() of the task gave a {type(value).__name__}, which no line of JSON holds. Give numbers, text, "
        "tensors, and lists and dicts of these"
    )

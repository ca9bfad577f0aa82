"""Numbers that a model predicts, such as ratings, against the true ones: a metric that is drawn, and the picture."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray

from phalanx.exit.codes import ConfigError

from ...sinks.shown import Image
from ..metric import Metric
from .canvas import INK, PAPER, QUIET, WRONG, Pixels, coloured, picture, pixels_of, round_steps
from .heatmap import Axis, draw_heatmap
from .host_pictures import host

_SIDE = 720


class PredictedAgainstTrue(Metric):
    """How often each number was predicted (upwards) for each true one (to the right): a picture, and no number.

    Both lie from `low` to `high`, which are cut into `bins`; what lies outside is in the outermost ones, and what is no
    number in none. `update` gets two tensors of one shape. Counts are whole numbers, so the picture is exact on any number
    of ranks.
    """

    only_shown: ClassVar[bool] = True

    def __init__(self, low: float, high: float, bins: int = 40) -> None:
        if not low < high or not 2 <= bins <= 500:
            raise ConfigError(
                f"Numbers from {low} to {high} in {bins} bins cannot be drawn. Give low < high, 2 to 500 bins"
            )
        self.low, self.high, self.bins = float(low), float(high), bins
        self.counts = torch.zeros(bins * bins + 1, dtype=torch.int64)  # the last is of what is no number

    def update(self, predicted: torch.Tensor, true: torch.Tensor) -> None:
        found, wanted = predicted.reshape(-1).double(), true.reshape(-1).to(predicted.device).double()
        cell = self._bin(found) * self.bins + self._bin(wanted)
        cell = torch.where(found.isnan() | wanted.isnan(), self.bins * self.bins, cell)
        self.counts = self.counts.to(cell.device)
        self.counts.index_add_(0, cell, torch.ones_like(cell))

    def _bin(self, values: torch.Tensor) -> torch.Tensor:
        shares = torch.nan_to_num((values - self.low) / (self.high - self.low), nan=0.0, posinf=1.0, neginf=0.0)
        return (shares.clamp(0, 1) * self.bins).long().clamp(max=self.bins - 1)

    def merge(self, others: Sequence[Self]) -> None:
        for other in others:
            self.counts = self.counts.to(other.counts.device) + other.counts

    def compute(self) -> Mapping[str, float]:
        return {}

    def show(self) -> Image:
        return _image(host(self.counts[:-1]).reshape(self.bins, self.bins), self.low, self.high, "")


def predicted_against_true(
    predicted: Any, true: Any, *, low: float | None = None, high: float | None = None, bins: int = 40, caption: str = ""
) -> Image:
    """The picture of these numbers alone, such as those of a batch. Raises ConfigError."""
    found, wanted = (torch.as_tensor(host(each)).double().reshape(-1) for each in (predicted, true))
    if len(found) != len(wanted) or not len(found):
        raise ConfigError(
            f"{len(found)} predicted and {len(wanted)} true numbers cannot be drawn. Give one of each a sample"
        )
    low = float(torch.minimum(found, wanted).nan_to_num().min()) if low is None else low
    high = float(torch.maximum(found, wanted).nan_to_num().max()) if high is None else high
    metric = PredictedAgainstTrue(low, max(high, low + 1e-9), bins)
    metric.update(found, wanted)
    return _image(host(metric.counts[:-1]).reshape(bins, bins), metric.low, metric.high, caption)


def _image(counts: NDArray[Any], low: float, high: float, caption: str) -> Image:
    return Image(
        partial(_draw, counts, low, high), caption or "dots: the mean of what is predicted; line: where it is right"
    )


def _draw(counts: NDArray[Any], low: float, high: float) -> Pixels:
    from PIL import ImageDraw

    bins = len(counts)
    side = max(1, _SIDE // bins)
    shares = np.log1p(counts) / max(1e-12, float(np.log1p(counts.max())))
    sheet = picture(coloured(shares[::-1], "blues").repeat(side, 0).repeat(side, 1))
    size = sheet.width
    draw = ImageDraw.Draw(sheet)
    draw.line((0, size, size, 0), QUIET, 2)
    middles = (np.arange(bins) + 0.5) / bins
    for column in np.flatnonzero(counts.sum(0)):
        mean = float((counts[:, column] * middles).sum() / counts[:, column].sum())
        x, y = middles[column] * size, (1 - mean) * size
        draw.ellipse((x - 6, y - 6, x + 6, y + 6), WRONG, PAPER, 2)
    draw.rectangle((0, 0, size - 1, size - 1), None, INK, 1)
    steps = [((at - low) / (high - low), f"{at:g}") for at in round_steps(low, high, 8)]
    rows = Axis("predicted", [(1 - at, text) for at, text in steps])
    return pixels_of(draw_heatmap(np.asarray(sheet), rows, Axis("true", steps), slanted=False))

"""Which classes a model takes for which: a metric over a whole evaluation that is drawn, and the picture itself."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray

from phalanx.exit.codes import ConfigError

from ...sinks.shown import Image
from ..metric import Metric
from .canvas import LINES, SMALL, Pixels, coloured, ink_on, name_of, picture, width_of, write
from .heatmap import as_pixels, draw_heatmap, named_axis
from .host_pictures import host

MOST_CLASSES = 2000
_SIDE = 900  # pixels of the matrix, or a pixel a class where there are more
_WRITTEN = 30  # classes up to which each count is written


class ConfusionMatrix(Metric):
    """How many samples of each true class (rows) were taken for each class (columns): a picture, and no number.

    `update` gets logits (b, classes) or predicted classes (b,), and the labels (b,); further dimensions, as of a class a
    pixel, come last in both. Labels outside 0..classes-1, as of what is to be ignored, are left out. Counts are whole
    numbers, so the matrix is exact on any number of ranks.
    """

    only_shown: ClassVar[bool] = True

    def __init__(self, classes: int, names: Sequence[str] | None = None) -> None:
        if not 2 <= classes <= MOST_CLASSES:
            raise ConfigError(f"A confusion matrix of {classes} classes cannot be drawn. Give 2 to {MOST_CLASSES}")
        self.classes = classes
        self.names = None if names is None else list(map(str, names))
        self.counts = torch.zeros(classes * classes + 1, dtype=torch.int64)  # the last is of what is left out

    def update(self, predictions: torch.Tensor, labels: torch.Tensor) -> None:
        found = predictions.argmax(1) if predictions.dim() == labels.dim() + 1 else predictions
        found, true = found.reshape(-1).long(), labels.reshape(-1).long().to(found.device)
        inside = (true >= 0) & (true < self.classes) & (found >= 0) & (found < self.classes)
        cell = torch.where(inside, true * self.classes + found, self.classes * self.classes)
        self.counts = self.counts.to(cell.device)
        self.counts.index_add_(0, cell, torch.ones_like(cell))

    def merge(self, others: Sequence[Self]) -> None:
        for other in others:
            self.counts = self.counts.to(other.counts.device) + other.counts

    def compute(self) -> Mapping[str, float]:
        return {}

    def show(self) -> Image:
        return confusion_matrix(self.counts[:-1].view(self.classes, self.classes), names=self.names)


def confusion_matrix(counts: Any, *, names: Sequence[str] | None = None, caption: str = "") -> Image:
    """A picture of `counts` (classes, classes): true classes in rows, predicted ones in columns.

    Colours are shares of a row: blue where the class is right, orange where it is not. Raises ConfigError.
    """
    found = host(counts)
    if found.ndim != 2 or found.shape[0] != found.shape[1] or not 2 <= len(found) <= MOST_CLASSES:
        raise ConfigError(f"A confusion matrix of shape {found.shape} cannot be drawn. Give (classes, classes) counts")
    told = [name_of(names, index) for index in range(len(found))]
    right, whole = int(np.trace(found)), int(found.sum())
    title = f"{right:,} of {whole:,} right, {right / max(1, whole):.2%}"
    return Image(partial(_draw, found, told, title), caption or title)


def _draw(counts: NDArray[Any], names: Sequence[str], title: str) -> Pixels:
    classes = len(counts)
    side = max(1, min(_SIDE // classes, 90))
    shares = counts / np.maximum(1, counts.sum(1, keepdims=True))
    faces = np.where(
        np.eye(classes, dtype=bool)[..., None], coloured(shares, "blues"), coloured(shares**0.5, "oranges")
    )
    face = faces.repeat(side, 0).repeat(side, 1).astype(np.uint8)
    if side >= 12:
        face[::side] = face[:, ::side] = face[-1] = face[:, -1] = LINES
    if classes <= _WRITTEN:
        face = _written(face, counts, faces, side)
    rows, columns = named_axis("true", names, len(face)), named_axis("predicted", names, len(face))
    slanted = max(width_of(name, SMALL) for _, name in columns.ticks) > side * len(names) / len(columns.ticks) - 6
    return as_pixels(draw_heatmap(face, rows, columns, slanted=slanted, title=title))


def _written(face: Pixels, counts: NDArray[Any], colours: NDArray[Any], side: int) -> Pixels:
    """With the counts, but for zeros, as large as all of them fit."""
    from PIL import ImageDraw

    sheet = picture(face)
    draw = ImageDraw.Draw(sheet)
    told = {(i, j): f"{int(counts[i, j])}" for i, j in zip(*np.nonzero(counts), strict=True)}
    widest = max(map(len, told.values()), default=1)
    size = next((size for size in range(24, 8, -1) if width_of("8" * widest, size) <= side - 6), 0)
    for (i, j), text in told.items() if size else ():
        ink = ink_on(colours[i, j])
        at = ((j + 0.5) * side - width_of(text, size) / 2, (i + 0.5) * side - size / 2 - 3)
        write(draw, at, text, ink, size)
    return np.asarray(sheet)

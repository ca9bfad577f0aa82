"""What each token attends to."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phalanx.exit.codes import ConfigError

from ...sinks.shown import Image
from .canvas import Pixels, coloured, pixels_of
from .heatmap import draw_heatmap, named_axis
from .host_pictures import host

_MOST = 64  # tokens of a side
_SIDE = 36  # pixels of a weight, at most


def attention(
    weights: Any, queries: Sequence[object], keys: Sequence[object] | None = None, *, caption: str = ""
) -> Image:
    """A picture of `weights` (queries, keys), or (heads, queries, keys), of which it is the mean over heads.

    `queries` are the tokens of the rows, such as those generated, and `keys` those of the columns, such as the source's;
    left out they are the same. The first 64 of each are drawn. Raises ConfigError where there are more tokens than weights.
    """
    found = host(weights).astype(float)
    found = found.mean(0) if found.ndim == 3 else found
    rows, columns = list(map(_told, queries)), list(map(_told, queries if keys is None else keys))
    if found.ndim != 2 or len(rows) > found.shape[0] or len(columns) > found.shape[1] or not rows or not columns:
        raise ConfigError(
            f"Attention of shape {tuple(np.shape(weights))} has no weight for each of {len(rows)} tokens of queries and "
            f"{len(columns)} of keys. Give (queries, keys) or (heads, queries, keys)"
        )
    rows, columns = rows[:_MOST], columns[:_MOST]
    return Image(partial(_draw, found[: len(rows), : len(columns)], rows, columns), caption)


def _told(token: object) -> str:
    """So that a space or the end of a line, which are tokens, can be seen."""
    text = str(token)
    return text if text.strip() == text and text.isprintable() and text else repr(text)


def _draw(weights: NDArray[Any], rows: Sequence[str], columns: Sequence[str]) -> Pixels:
    side = max(16, min(_SIDE, 1100 // max(weights.shape)))
    top = float(np.nanmax(weights, initial=0.0))
    face = coloured(weights / max(top, 1e-12), "blues").repeat(side, 0).repeat(side, 1)
    down, across = named_axis("", rows, len(face)), named_axis("", columns, face.shape[1])
    title = f"up to {top:.2f}" if face.shape[1] > 120 else ""
    return pixels_of(draw_heatmap(face, down, across, slanted=True, title=title))

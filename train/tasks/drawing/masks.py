"""A class for each pixel, laid over the picture: as it is, and as a model finds it."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phalanx.exit.codes import ConfigError

from ...sinks.shown import Image
from .canvas import (
    GAP,
    INK,
    LINES,
    QUIET,
    TEXT,
    WRONG,
    Pixels,
    fitted,
    name_of,
    palette,
    paper,
    picture,
    width_of,
    write,
)
from .grid import Cell, draw_grid, empty, enlarged
from .host_pictures import HostPicture, host, host_pictures

_SIDE = 320
_COVER = 0.6  # of the picture by a class's colour


def masks(
    images: Any,
    targets: Any,
    found: Any = None,
    *,
    names: Sequence[str] | None = None,
    ignore: int | None = 255,
    background: int | None = 0,
    limit: int = 4,
    caption: str = "",
) -> Image:
    """A row for each of the first `limit` images: the image, its true mask, the mask found, and where the two differ.

    `images` are (b, channels, h, w), `targets` and `found` (b, h, w) of whole numbers, the class of each pixel, called by
    `names` in a legend; or lists of such where sizes differ. Pixels of class `ignore` are left out, those of `background`
    are left as they are. Raises ConfigError.
    """
    pictures = host_pictures(images, limit)
    true, seen = _classes(targets, len(pictures), "targets"), None
    if found is not None:
        seen = _classes(found, len(pictures), "found")
    told = None if names is None else list(names)
    return Image(partial(_draw, pictures, true, seen, told, ignore, background) if pictures else empty, caption)


def _classes(given: Any, count: int, what: str) -> list[NDArray[Any]]:
    if len(given) < count:
        raise ConfigError(f"There are {count} images to draw and {len(given)} masks of {what}. Give one an image")
    every = [host(given[i]) for i in range(count)]
    every = [mask[0] if mask.ndim == 3 and len(mask) == 1 else mask for mask in every]
    for mask in every:
        if mask.ndim != 2:
            raise ConfigError(f"A mask of {what} has shape {mask.shape}, and should be (h, w): answer.argmax(1)")
    return [mask.astype(int) for mask in every]


def _draw(
    pictures: Sequence[HostPicture],
    true: Sequence[NDArray[Any]],
    found: Sequence[NDArray[Any]] | None,
    names: Sequence[str] | None,
    ignore: int | None,
    background: int | None,
) -> Pixels:
    cells, left_out = [], {ignore, background}
    for index, each in enumerate(pictures):
        pixels, _ = enlarged(each.pixels(), _SIDE)
        mask = _sized(true[index], pixels)
        cells += [Cell(pixels, [("image", QUIET)]), Cell(_covered(pixels, mask, left_out, ignore), [("true", QUIET)])]
        if found is not None:
            other = _sized(found[index], pixels)
            counts = mask != ignore if ignore is not None else np.ones_like(mask, bool)
            differs = (mask != other) & counts
            share = 1 - differs.sum() / max(1, counts.sum())
            cells.append(Cell(_covered(pixels, other, left_out, ignore), [("found", QUIET)]))
            cells.append(Cell(_errors(pixels, differs), [(f"{share:.1%} right", QUIET)]))
    grid = draw_grid(cells, columns=2 if found is None else 4, side=_SIDE)
    seen = {int(kind) for mask in [*true, *(found or ())] for kind in np.unique(mask)} - left_out
    return _with_legend(grid, [(name_of(names, kind), kind) for kind in sorted(seen)])


def _sized(mask: NDArray[Any], pixels: Pixels) -> NDArray[Any]:
    """The class at each pixel of the picture as it is drawn."""
    rows = (np.arange(pixels.shape[0]) + 0.5) * mask.shape[0] / pixels.shape[0]
    columns = (np.arange(pixels.shape[1]) + 0.5) * mask.shape[1] / pixels.shape[1]
    found: NDArray[Any] = mask[rows.astype(int)[:, None], columns.astype(int)]
    return found


def _covered(pixels: Pixels, mask: NDArray[Any], left_out: set[int | None], ignore: int | None) -> Pixels:
    shown = pixels.astype(float)
    for kind in np.unique(mask):
        part = mask == kind
        if int(kind) not in left_out:
            shown[part] = shown[part] * (1 - _COVER) + np.array(palette(int(kind))) * _COVER
        elif ignore is not None and int(kind) == ignore:
            shown[part] = LINES
    return shown.round().astype(np.uint8)


def _errors(pixels: Pixels, differs: NDArray[Any]) -> Pixels:
    """The picture, pale and grey, and what is wrong in one colour."""
    pale = 255 - (255 - pixels.astype(float).mean(2, keepdims=True)) * 0.35
    shown = np.repeat(pale, 3, 2)
    shown[differs] = WRONG
    return shown.round().astype(np.uint8)


def _with_legend(grid: Pixels, kinds: Sequence[tuple[str, int]]) -> Pixels:
    """`grid` (3, h, w) with the colours of the classes that are seen below it, in as many lines as it takes."""
    places, x, y = [], GAP, 0
    for name, kind in kinds[:100]:
        name = fitted(name, 300, TEXT)
        wide = TEXT + 10 + width_of(name, TEXT) + 28
        if x > GAP and x + wide > grid.shape[2]:
            x, y = GAP, y + TEXT + 14
        places.append((x, y, name, kind))
        x += wide
    sheet, draw = paper(grid.shape[2], grid.shape[1] + (y + TEXT + 14 + GAP if places else 0))
    sheet.paste(picture(grid.transpose(1, 2, 0)), (0, 0))
    for x, y, name, kind in places:
        top = grid.shape[1] + y
        draw.rectangle((x, top + 3, x + TEXT - 4, top + TEXT - 1), palette(kind))
        write(draw, (x + TEXT + 4, top), name, INK, TEXT)
    return np.asarray(sheet).transpose(2, 0, 1)

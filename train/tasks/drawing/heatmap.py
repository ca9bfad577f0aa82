"""Numbers in rows and columns as colours, with names or numbers along both sides."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .canvas import (
    INK,
    LINES,
    QUIET,
    SMALL,
    TEXT,
    Pixels,
    fitted,
    paper,
    picture,
    pixels_of,
    rotated_text,
    width_of,
    write,
)

if TYPE_CHECKING:
    from PIL import Image, ImageDraw

_NAME = 220  # pixels of a name beside the picture, at most
_PAD = 20


@dataclass(frozen=True)
class Axis:
    """A `title`, and `ticks`: where each stands, from 0 to 1 of the side, and what is written there."""

    title: str
    ticks: Sequence[tuple[float, str]]


def named_axis(title: str, names: Sequence[str], side: int) -> Axis:
    """A tick in the middle of each of `names`, or of every so many where a side of `side` pixels has no room for all."""
    every = next((n for n in (1, 2, 5, 10, 20, 50, 100, 200, 500) if side / len(names) * n >= SMALL + 2), len(names))
    return Axis(title, [((i + 0.5) / len(names), name) for i, name in enumerate(names) if i % every == 0])


def draw_heatmap(face: Pixels, rows: Axis, columns: Axis, *, slanted: bool, title: str = "") -> "Image.Image":
    """The coloured `face` (h, w, 3) with its axes: rows at the left, columns below, their names upright if `slanted`."""
    left = max((width_of(fitted(name, _NAME, SMALL), SMALL) for _, name in rows.ticks), default=0) + 12
    low = max((width_of(fitted(name, _NAME, SMALL), SMALL) for _, name in columns.ticks), default=0)
    below = (low if slanted else SMALL) + 14
    edge, head = (TEXT + 14 if rows.title else 0), (TEXT + 14 if title else 0)
    high, wide = face.shape[:2]
    x, y = _PAD + edge + left, _PAD + head
    sheet, draw = paper(
        x + max(wide, width_of(title, TEXT)) + _PAD, y + high + below + (TEXT + 14 if columns.title else 0) + _PAD
    )
    sheet.paste(picture(face), (x, y))
    draw.rectangle((x - 1, y - 1, x + wide, y + high), None, LINES)
    if title:
        write(draw, (x, _PAD - 2), title, INK, TEXT)
    for at, name in rows.ticks:
        told = fitted(name, _NAME, SMALL)
        write(draw, (x - 10 - width_of(told, SMALL), y + at * high - SMALL / 2 - 3), told, INK, SMALL)
    for at, name in columns.ticks:
        _below(sheet, draw, fitted(name, _NAME, SMALL), x + at * wide, y + high + 8, slanted)
    if columns.title:
        middle = x + (wide - width_of(columns.title, TEXT)) / 2
        write(draw, (max(x, middle), y + high + below + 2), columns.title, QUIET, TEXT)
    if rows.title:
        length = width_of(rows.title, TEXT)
        rotated_text(sheet, rows.title, _PAD - 6, int(y + (high + length) / 2), TEXT, QUIET)
    return sheet


def _below(sheet: "Image.Image", draw: "ImageDraw.ImageDraw", name: str, x: float, y: int, slanted: bool) -> None:
    if slanted:
        rotated_text(sheet, name, int(x - SMALL / 2 - 2), y + width_of(name, SMALL) + 2, SMALL, INK)
    else:
        write(draw, (x - width_of(name, SMALL) / 2, y), name, INK, SMALL)


def as_pixels(sheet: "Image.Image") -> Pixels:
    """(3, h, w)."""
    return pixels_of(sheet)

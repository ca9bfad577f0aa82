"""Pictures side by side in cells of one size, with lines of text below each."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .canvas import GAP, INK, TEXT, WIDTH, Colour, Pixels, fitted, paper, pixels_of, scaled, write

_CELL = 208  # pixels of a cell's side where pictures are smaller
_LINE = TEXT + 8


@dataclass(frozen=True)
class Cell:
    """A picture of a grid, lines of text below it, each with its colour, and the colour of a frame."""

    pixels: Pixels
    lines: Sequence[tuple[str, Colour]] = ()
    frame: Colour | None = None


def draw_grid(cells: Sequence[Cell], columns: int | None = None, side: int = _CELL) -> Pixels:
    """(3, h, w). `side` is the largest of a picture's sides in pixels; as many `columns` as there is room for."""
    largest = max((max(cell.pixels.shape[:2]) for cell in cells), default=1)
    factor = _factor(largest, side)
    faces = [scaled(cell.pixels, factor) for cell in cells]
    wide = max([*(face.width for face in faces), 120 if any(cell.lines for cell in cells) else 1])
    high = max(face.height for face in faces)
    text = _LINE * max(len(cell.lines) for cell in cells) + (6 if any(cell.lines for cell in cells) else 0)
    most = columns or max(1, (WIDTH - GAP) // (wide + GAP))
    rows = -(-len(cells) // most)
    columns = most if columns and rows > 1 else -(-len(cells) // rows)  # rows as long as one another
    sheet, draw = paper(GAP + columns * (wide + GAP), GAP + rows * (high + text + GAP))
    for index, (cell, face) in enumerate(zip(cells, faces, strict=True)):
        left, top = GAP + index % columns * (wide + GAP), GAP + index // columns * (high + text + GAP)
        sheet.paste(face, (left, top))
        if cell.frame is not None:
            draw.rectangle((left - 5, top - 5, left + face.width + 4, top + face.height + 4), None, cell.frame, 5)
        for row, (line, ink) in enumerate(cell.lines):
            write(draw, (left, top + face.height + 6 + row * _LINE), fitted(line, wide, TEXT), ink, TEXT)
    return pixels_of(sheet)


def empty() -> Pixels:
    """What is drawn of nothing."""
    sheet, draw = paper(400, 60)
    write(draw, (GAP, GAP), "nothing to show", INK, TEXT)
    return pixels_of(sheet)


def enlarged(pixels: Pixels, side: int) -> tuple[Pixels, float]:
    """A picture at the size at which a grid shows it, so that what is drawn on it is fine; and the factor."""
    factor = _factor(max(pixels.shape[:2]), side)
    return np.asarray(scaled(pixels, factor)), factor


def _factor(largest: int, side: int) -> float:
    """Small pictures grow by whole numbers."""
    return max(1, side // largest) if largest <= side else side / largest

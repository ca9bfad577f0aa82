"""Boxes in pictures: those that are there, and those that a model finds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phalanx.exit.codes import ConfigError

from ...sinks.shown import Image
from .canvas import PAPER, RIGHT, SMALL, WRONG, Colour, Pixels, name_of, picture, width_of, write
from .grid import Cell, draw_grid, empty, enlarged
from .host_pictures import HostPicture, host, host_pictures

_SIDE = 416
_TINT = 0.4  # of a mask
_MOST = 40  # boxes of a picture, those with the highest scores


@dataclass(frozen=True)
class _Boxes:
    """Of one picture: `corners` (n, 4) as x1, y1, x2, y2 in its pixels, what to write at each, and masks (n, h, w)."""

    corners: NDArray[Any]
    notes: Sequence[str]
    masks: NDArray[Any] | None


def boxes(
    images: Any,
    targets: Sequence[Mapping[str, Any]] | None,
    found: Sequence[Mapping[str, Any]] | None,
    *,
    names: Sequence[str] | None = None,
    box_format: str = "xyxy",
    least_score: float = 0.5,
    limit: int = 8,
    caption: str = "green: true, orange: found",
) -> Image:
    """The first `limit` images with their true boxes in green and those found with `least_score` or more in orange.

    `images` are a list of (channels, h, w) or a batch of them. `targets` and `found` have a dict for each, as torchvision's
    detectors take and give them: `boxes` (n, 4) in pixels, and where there are such `labels` (n,), `scores` (n,) and
    `masks` (n, h, w) or (n, 1, h, w), which are tinted. `box_format` is xyxy, xywh or cxcywh. Raises ConfigError.
    """
    pictures = host_pictures(images, limit)
    true = _all(targets, len(pictures), names, box_format, 0.0, "targets")
    seen = _all(found, len(pictures), names, box_format, least_score, "found")
    return Image(partial(_draw, pictures, true, seen) if pictures else empty, caption)


def _all(
    given: Sequence[Mapping[str, Any]] | None,
    count: int,
    names: Sequence[str] | None,
    form: str,
    least: float,
    what: str,
) -> list[_Boxes | None]:
    if given is None:
        return [None] * count
    if len(given) < count:
        raise ConfigError(f"There are {count} images to draw and {len(given)} dicts of {what}. Give one an image")
    return [_boxes(given[i], names, form, least) for i in range(count)]


def _boxes(given: Mapping[str, Any], names: Sequence[str] | None, form: str, least: float) -> _Boxes:
    corners = _corners(host(given["boxes"]).reshape(-1, 4).astype(float), form)
    scores = host(given["scores"]).astype(float) if "scores" in given else None
    order = np.arange(len(corners)) if scores is None else np.argsort(-scores, kind="stable")
    chosen = [int(i) for i in order if scores is None or scores[i] >= least][:_MOST]
    labels = host(given["labels"]).tolist() if "labels" in given else [""] * len(corners)
    told = [labels[i] if isinstance(labels[i], str) else name_of(names, int(labels[i])) for i in chosen]
    sure = ["" if scores is None else f" {scores[i]:.2f}" for i in chosen]
    masks = None
    if "masks" in given and chosen:
        every = given["masks"][chosen]
        every = host(every).reshape(len(chosen), *every.shape[-2:])
        masks = every > 0.5 if every.dtype.kind == "f" else every != 0
    return _Boxes(corners[chosen], [f"{name}{score}" for name, score in zip(told, sure, strict=True)], masks)


def _corners(given: NDArray[Any], form: str) -> NDArray[Any]:
    if form == "xyxy":
        return given
    if form not in ("xywh", "cxcywh"):
        raise ConfigError(f"Boxes of the format {form} cannot be drawn. Give xyxy, xywh or cxcywh")
    size = given[:, 2:]
    first = given[:, :2] - (size / 2 if form == "cxcywh" else 0)
    return np.concatenate([first, first + size], 1)


def _draw(pictures: Sequence[HostPicture], true: Sequence[_Boxes | None], found: Sequence[_Boxes | None]) -> Pixels:
    cells = []
    for each, targets, seen in zip(pictures, true, found, strict=True):
        pixels, factor = enlarged(each.pixels(), _SIDE)
        for given, colour, above in ((targets, RIGHT, True), (seen, WRONG, False)):
            if given is not None:
                pixels = _drawn(pixels, given, each.shrunk * factor, colour, above)
        cells.append(Cell(pixels))
    return draw_grid(cells, columns=4, side=_SIDE)


def _drawn(pixels: Pixels, given: _Boxes, factor: float, colour: Colour, above: bool) -> Pixels:
    """With the boxes, whose notes stand above their upper edge or within the lower one."""
    from PIL import ImageDraw

    for mask in [] if given.masks is None else given.masks:
        there = picture(mask.astype(np.uint8) * 255).resize((pixels.shape[1], pixels.shape[0]))
        part = (np.asarray(there) > 127)[..., None] * _TINT
        pixels = (pixels * (1 - part) + np.array(colour) * part).round().astype(np.uint8)
    sheet = picture(pixels)
    draw = ImageDraw.Draw(sheet)
    high = SMALL + 4
    for (x1, y1, x2, y2), note in zip(given.corners * factor, given.notes, strict=True):
        if not np.isfinite([x1, y1, x2, y2]).all():
            continue
        left, right = sorted((min(max(x1, -9), sheet.width + 9), min(max(x2, -9), sheet.width + 9)))
        top, bottom = sorted((min(max(y1, -9), sheet.height + 9), min(max(y2, -9), sheet.height + 9)))
        draw.rectangle((left, top, right, bottom), None, colour, 3)
        if note:
            at = max(0, top - high) if above else min(sheet.height - high, bottom - high)
            draw.rectangle((left, at, left + width_of(note, SMALL) + 8, at + high), colour)
            write(draw, (left + 4, at), note, PAPER, SMALL)
    return np.asarray(sheet)

"""Pictures with their labels and what a model takes them for."""

from collections.abc import Sequence
from functools import partial
from typing import Any

from phalanx.exit.codes import ConfigError

from ...sinks.shown import Image
from .canvas import INK, QUIET, RIGHT, WRONG, Colour, Pixels, name_of
from .grid import Cell, draw_grid, empty
from .host_pictures import HostPicture, host, host_pictures


def labelled_images(
    images: Any,
    labels: Any,
    predictions: Any = None,
    *,
    scores: Any = None,
    names: Sequence[str] | None = None,
    limit: int = 16,
    caption: str = "",
) -> Image:
    """A grid of the first `limit` images, each with its label, or with its prediction, and the label where that is wrong.

    `images` are (b, h, w), (b, channels, h, w), or a list of images of different sizes; `labels` and `predictions` (b,) of
    whole numbers, called by `names` if given, or text; `scores` (b,) from 0 to 1. Raises ConfigError where lengths differ.
    """
    true, found = _told(labels, names, limit), None if predictions is None else _told(predictions, names, limit)
    sure = None if scores is None else [float(score) for score in host(scores)[:limit]]
    pictures = host_pictures(images, limit)
    for name, given in (("labels", true), ("predictions", found), ("scores", sure)):
        if given is not None and len(given) != len(pictures):
            raise ConfigError(f"There are {len(pictures)} images to draw and {len(given)} {name}. Give one an image")
    notes = [
        _lines(true[i], None if found is None else found[i], None if sure is None else sure[i])
        for i in range(len(true))
    ]
    wrong = [found is not None and found[i] != true[i] for i in range(len(true))]
    return Image(partial(_draw, pictures, notes, wrong) if pictures else empty, caption)


def _draw(
    pictures: Sequence[HostPicture], notes: Sequence[Sequence[tuple[str, Colour]]], wrong: Sequence[bool]
) -> Pixels:
    drawn = zip(pictures, notes, wrong, strict=True)
    return draw_grid([Cell(each.pixels(), lines, WRONG if odd else None) for each, lines, odd in drawn])


def _told(labels: Any, names: Sequence[str] | None, limit: int) -> list[str]:
    whole = host(labels[:limit]).tolist() if hasattr(labels, "shape") else list(labels[:limit])
    return [name_of(names, label) if isinstance(label, int) else str(label) for label in whole]


def _lines(label: str, found: str | None, score: float | None) -> list[tuple[str, Colour]]:
    if found is None:
        return [(label, INK)]
    sure = "" if score is None else f", {score:.0%}"
    if found == label:
        return [(f"{found}{sure}", RIGHT)]
    return [(f"{found}{sure}", WRONG), (f"is {label}", QUIET)]


def class_names(dataset: Any) -> list[str] | None:
    """Its attribute `classes`, a list of names as torchvision's data sets have it; None where there is none."""
    found = getattr(dataset, "classes", None)
    return list(found) if isinstance(found, list | tuple) and found and all(isinstance(c, str) for c in found) else None

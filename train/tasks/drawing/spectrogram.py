"""Spectrograms, one above the other."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phalanx.exit.codes import ConfigError

from ...sinks.shown import Image
from .canvas import Pixels, coloured, paper, pixels_of, round_steps, scaled
from .heatmap import Axis, draw_heatmap
from .host_pictures import host

_WIDE, _HIGH = 1200, 280


def spectrogram(mels: Any, *, rate: int | None = None, hop: int | None = None, caption: str = "") -> Image:
    """A picture of `mels` (bands, frames), such as a log-mel spectrogram, the lowest band below; time runs to the right.

    Several, such as {"recorded": …, "predicted": …}, stand one above the other, in one scale of colours from the lowest to
    the highest number and one of time. With `rate`, samples a second, and `hop`, samples from frame to frame, time is in
    seconds, else in frames. Show the sound beside it as `Audio` under the same name without `_mel`: `said_mel` and `said`.
    Raises ConfigError.
    """
    given = mels if isinstance(mels, Mapping) else {"": mels}
    panels = {str(name): host(each).astype(float) for name, each in given.items()}
    for name, panel in panels.items():
        if panel.ndim != 2 or not panel.size:
            raise ConfigError(f"A spectrogram {name} of shape {panel.shape} cannot be drawn. Give (bands, frames)")
    if not panels:
        raise ConfigError("There is no spectrogram to draw. Give (bands, frames), or several by name")
    frame_s = hop / rate if rate and hop else None
    return Image(partial(_draw, panels, frame_s), caption)


def _draw(panels: Mapping[str, NDArray[Any]], frame_s: float | None) -> Pixels:
    finite = [panel[np.isfinite(panel)] for panel in panels.values()]
    low = min((float(found.min()) for found in finite if found.size), default=0.0)
    high = max((float(found.max()) for found in finite if found.size), default=1.0)
    longest = max(panel.shape[1] for panel in panels.values())
    ends = longest * (frame_s or 1)
    steps = round_steps(0, ends, 10)
    time = Axis("seconds" if frame_s else "frames", [(at / ends, f"{at:g}") for at in steps])
    sheets = []
    for index, (name, panel) in enumerate(panels.items()):
        shares = np.full((panel.shape[0], longest), np.nan)
        shares[:, : panel.shape[1]] = (np.where(np.isfinite(panel), panel, low) - low) / max(1e-12, high - low)
        face = np.asarray(scaled(coloured(shares[::-1], "magma"), 1).resize((_WIDE, _HIGH)))
        bands = panel.shape[0]
        marks = [(1 - (at + 0.5) / bands, f"{at:g}") for at in round_steps(0, bands - 1, 5)]
        last = index == len(panels) - 1
        below = time if last else Axis("", [])
        sheets.append(draw_heatmap(face, Axis("band", marks), below, slanted=False, title=name))
    return _stacked(sheets)


def _stacked(sheets: Sequence[Any]) -> Pixels:
    whole, _ = paper(max(sheet.width for sheet in sheets), sum(sheet.height for sheet in sheets))
    top = 0
    for sheet in sheets:
        whole.paste(sheet, (whole.width - sheet.width, top))
        top += sheet.height
    return pixels_of(whole)

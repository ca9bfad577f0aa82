"""What all pictures are drawn with: one set of colours, one font, cells on white paper. Needs no display and no torch."""

import math
import unicodedata
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL import Image, ImageDraw, ImageFont

Pixels = NDArray[np.uint8]  # (h, w, 3), unless it is said to be (3, h, w)
Colour = tuple[int, int, int]

# Told apart by people who see few colours: Okabe and Ito, "Color Universal Design" (2008).
RIGHT: Colour = (0, 140, 102)
WRONG: Colour = (204, 85, 0)
INK: Colour = (34, 34, 34)
QUIET: Colour = (110, 110, 110)
PAPER: Colour = (255, 255, 255)
LINES: Colour = (222, 222, 222)

TEXT = 22  # pixels; pictures are drawn at twice the size at which a page shows them
SMALL = 18
GAP = 16
WIDTH = 1820  # of a picture, at most
_LETTERS = str.maketrans({"ß": "ss", "ø": "o", "Ø": "O", "ł": "l", "Ł": "L", "æ": "ae", "œ": "oe", "đ": "d"})
_SCALES = {
    # Stops at equal distances: viridis and magma (Smith and van der Walt, 2015), blues and oranges of one hue.
    "viridis": "440154 482878 3e4989 31688e 26828e 1f9e89 35b779 6ece58 b5de2b fde725",
    "magma": "000004 180f3d 440f76 721f81 9e2f7f cd4071 f1605d fd9668 feca8d fcfdbf",
    "blues": "ffffff dbe9f6 b3d3ea 7db5da 4a94c8 1f71b2 0a4a88",
    "oranges": "ffffff fde6d3 fcc79d f99d5b f07824 d45a07 a03d02",
}


@cache
def _latin(size: int) -> "ImageFont.FreeTypeFont | ImageFont.ImageFont":
    from PIL import ImageFont

    return ImageFont.load_default(size)


@cache
def _broad(size: int) -> "ImageFont.FreeTypeFont | None":
    """A font of this machine with more than English letters; None where there is none."""
    from PIL import ImageFont

    try:
        return ImageFont.truetype("DejaVuSans.ttf", round(size * 0.94))
    except OSError:
        return None


def _plain(text: str) -> str:
    """Without accents; what is no English letter then is a question mark."""
    parted = unicodedata.normalize("NFKD", text.translate(_LETTERS))
    return "".join(c if c.isascii() else "?" for c in parted if not unicodedata.combining(c))


def _font(text: str, size: int) -> "tuple[ImageFont.FreeTypeFont | ImageFont.ImageFont, str]":
    """The font for a text, and the text as that font has it. Pillow's own font, which is always there, has ASCII alone."""
    broad = None if text.isascii() else _broad(size)
    return (_latin(size), _plain(text)) if broad is None else (broad, text)


def write(draw: "ImageDraw.ImageDraw", at: tuple[float, float], text: str, ink: Colour, size: int = TEXT) -> None:
    font, told = _font(text, size)
    draw.text((at[0], at[1] + size), told, ink, font, anchor="ls")


def width_of(text: str, size: int) -> int:
    font, told = _font(text, size)
    return math.ceil(font.getlength(told))


def fitted(text: object, width: float, size: int) -> str:
    """One line of at most `width` pixels; what is cut off ends in three dots."""
    line = " ".join(str(text)[:400].split())
    if width_of(line, size) <= width:
        return line
    low, high = 0, len(line)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if width_of(line[:middle] + "...", size) <= width else (low, middle - 1)
    return line[:low] + "..." if low else ""


def paper(width: int, height: int) -> "tuple[Image.Image, ImageDraw.ImageDraw]":
    from PIL import Image, ImageDraw

    sheet = Image.new("RGB", (max(1, width), max(1, height)), PAPER)
    return sheet, ImageDraw.Draw(sheet)


def pixels_of(sheet: "Image.Image") -> Pixels:
    """(3, h, w), as `Image` takes them."""
    return np.asarray(sheet).transpose(2, 0, 1)


def picture(pixels: Pixels) -> "Image.Image":
    from PIL import Image

    return Image.fromarray(np.ascontiguousarray(pixels))


def scaled(pixels: Pixels, factor: float) -> "Image.Image":
    """Small pictures grow to whole squares of pixels, so that each can be seen; large ones are averaged."""
    from PIL import Image

    found = picture(pixels)
    size = (max(1, round(found.width * factor)), max(1, round(found.height * factor)))
    return found.resize(size, Image.Resampling.NEAREST if factor >= 1 else Image.Resampling.BOX)


def rotated_text(sheet: "Image.Image", text: str, left: int, bottom: int, size: int, ink: Colour) -> None:
    """Text that runs upwards from (left, bottom), its feet to the right."""
    from PIL import Image

    note, draw = paper(width_of(text, size) + 2, size + 8)
    write(draw, (0, 0), text, ink, size)
    turned = note.transpose(Image.Transpose.ROTATE_90)
    sheet.paste(turned, (left, bottom - turned.height))


@cache
def ramp(name: str) -> NDArray[np.uint8]:
    """256 colours of a scale, (256, 3)."""
    stops = np.array([list(bytes.fromhex(stop)) for stop in _SCALES[name].split()], float)
    at = np.linspace(0, len(stops) - 1, 256)
    return np.stack([np.interp(at, np.arange(len(stops)), stops[:, i]) for i in range(3)], 1).round().astype(np.uint8)


def coloured(values: NDArray[Any], scale: str) -> Pixels:
    """Colours of `values` from 0 to 1, (h, w) to (h, w, 3); what is no number is grey."""
    whole = np.nan_to_num(values, nan=0.0).clip(0, 1)
    found: Pixels = ramp(scale)[(whole * 255).round().astype(int)]
    found[np.isnan(values)] = LINES
    return found


def ink_on(ground: Sequence[int] | NDArray[np.uint8]) -> Colour:
    """Black or white, whichever can be read on `ground` (luma of ITU-R BT.601)."""
    red, green, blue = (float(part) for part in ground)
    return INK if 0.299 * red + 0.587 * green + 0.114 * blue > 140 else PAPER


def palette(index: int) -> Colour:
    """The colour of class `index`: hues a golden angle apart, in three lightnesses, the same in every picture."""
    import colorsys

    hue, light = (0.58 + index * 0.381966) % 1.0, (0.50, 0.38, 0.64)[(index // 8) % 3]
    red, green, blue = colorsys.hls_to_rgb(hue, light, 0.72)
    return round(red * 255), round(green * 255), round(blue * 255)


def name_of(names: Sequence[str] | None, index: int) -> str:
    return names[index] if names is not None and 0 <= index < len(names) else str(index)


def round_steps(low: float, high: float, most: int) -> list[float]:
    """Numbers for an axis from `low` to `high`: 1, 2 or 5 times a power of ten apart."""
    span = high - low
    if not math.isfinite(span) or span <= 0:
        return [low]
    rough = span / max(1, most)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [n * step for n in range(first, math.floor(high / step + 1e-9) + 1)]

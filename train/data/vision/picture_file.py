"""Read picture files."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phalanx.exit.codes import ConfigError

_GREY_STEPS = {"L;2": 85, "L;4": 17}  # by which Pillow multiplies grey of 2 and 4 bits, so that white is 255


def read_picture(path: Path, mode: str | None) -> NDArray[Any]:
    """The pixels of a picture file: (h, w, 3) with `mode` RGB; with None the numbers in it, such as classes (h, w).

    Raises ConfigError that names the file.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as picture:
            step = 1 if mode or not picture.tile else _GREY_STEPS.get(str(picture.tile[0][3]), 1)
            pixels = np.array(picture.convert(mode) if mode else picture)
            return pixels if step == 1 else pixels // step
    except (OSError, SyntaxError, ValueError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise ConfigError(f"{path} cannot be read as a picture: {error}. Restore it, or leave it out") from None


def picture_size(path: Path) -> tuple[int, int]:
    """Height and width in pixels, of the file's header alone. Raises ConfigError that names the file."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as picture:
            return picture.height, picture.width
    except (OSError, SyntaxError, ValueError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise ConfigError(f"{path} cannot be read as a picture: {error}. Restore it, or leave it out") from None

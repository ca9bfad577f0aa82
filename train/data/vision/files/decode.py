"""Decode an image file to pixels (3, height, width) of uint8, which lie in memory as rows of RGB pixels."""

import functools
import importlib
import importlib.util
import io
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
import torch

from phalanx.exit.codes import ConfigError

_JPEG = b"\xff\xd8"
_FACTORS = (8, 4, 2)  # at which libjpeg-turbo has fast inverse transforms
FactorOf = Callable[[int, int], int]


class Decode(Enum):
    """Whether a JPEG may be decoded at a half, a quarter or an eighth of its size where a crop is shrunk further anyway."""

    exact = "all pixels"
    scaled = "by inverse transforms of 4x4, 2x2 or 1x1 for each 8x8 block"


def decode(path: Path) -> torch.Tensor:
    """All pixels of the file. Raises ConfigError that names it where it is damaged."""
    return _guarded(path, _decode)


def decode_scaled(path: Path, factor_of: FactorOf) -> torch.Tensor:
    """The pixels, of a JPEG at 1/8, 1/4 or 1/2 of its size where `factor_of(height, width)` reaches that.

    `factor_of` may be called for other files, too. Raises ConfigError as `decode` does.
    """
    return _guarded(path, lambda octets: _decode(octets, factor_of))


def check_scaled() -> None:
    """Raise ConfigError where what decodes to a smaller size is not installed."""
    if _simplejpeg() is None:
        raise ConfigError(
            "decode=scaled needs simplejpeg, which is not installed. Type pip install 'phalanx[data]', or decode=exact"
        )


@functools.cache
def _simplejpeg() -> Any:
    """The module that decodes JPEGs in two thirds of Pillow's time; None where it is not installed."""
    return importlib.import_module("simplejpeg") if importlib.util.find_spec("simplejpeg") else None


def _guarded(path: Path, act: Callable[[bytes], torch.Tensor]) -> torch.Tensor:
    try:
        return act(path.read_bytes())
    except OSError as error:  # Pillow's UnidentifiedImageError is one
        why = "it is no image" if "cannot identify" in str(error) else error.strerror or str(error)
    except (RuntimeError, ValueError, SyntaxError, EOFError) as error:
        why = next(iter(str(error).splitlines()), type(error).__name__)
    raise ConfigError(f"{path} cannot be decoded: {why}. Bring back a whole copy of it, or remove the file")


def _decode(octets: bytes, factor_of: FactorOf | None = None) -> torch.Tensor:
    found = _by_turbo(octets, factor_of) if octets[:2] == _JPEG and _simplejpeg() is not None else None
    return _by_pillow(octets) if found is None else found


def _by_turbo(octets: bytes, factor_of: FactorOf | None) -> torch.Tensor | None:
    """The pixels of a JPEG; None where Pillow has to judge it: in the colours of printers, or not as it should be.

    Whole images have the bits that Pillow gives, which decodes by the same library.
    """
    simplejpeg = _simplejpeg()
    try:
        height, width, space, _ = simplejpeg.decode_jpeg_header(octets)
        if space.lower() not in ("ycbcr", "gray", "rgb"):
            return None
        reach = 1 if factor_of is None else factor_of(height, width)
        factor = next((each for each in _FACTORS if each <= reach), 1)
        scaled = {"min_height": -(-height // factor), "min_width": -(-width // factor), "min_factor": factor}
        pixels = simplejpeg.decode_jpeg(octets, "RGB", **(scaled if factor > 1 else {}))
    except ValueError:
        return None
    return torch.from_numpy(pixels).permute(2, 0, 1)


def _by_pillow(octets: bytes) -> torch.Tensor:
    from PIL import Image  # here, for it is there with torchvision, and takes time where no image is read

    try:
        with Image.open(io.BytesIO(octets)) as image:
            return torch.from_numpy(np.array(image if image.mode == "RGB" else image.convert("RGB"))).permute(2, 0, 1)
    except Image.DecompressionBombError as error:
        raise ValueError(str(error)) from None

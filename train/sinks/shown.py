"""What a task shows of an evaluation beside numbers: pictures, tables, text and sound, each as a file of its own."""

import csv
import io
import math
import struct
import wave
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from phalanx.exit.codes import ConfigError

if TYPE_CHECKING:
    import torch

MOST_PIXELS = 1 << 24  # of an Image
MOST_SAMPLES = 1 << 25  # of an Audio, ten minutes at 48 kHz
MOST_ROWS = 10_000  # of a Table
MOST_CHARACTERS = 1 << 20  # of a Text
_UP = 2  # a filter of PNG (ISO/IEC 15948, section 9)
_COLOUR_TYPES = {1: 0, 3: 2, 4: 6}  # by channels, the same, section 11


class Shown(ABC):
    """One thing to show. `suffix` is that of its file, whose bytes `encoded` gives."""

    suffix: ClassVar[str]

    @abstractmethod
    def held(self) -> Self:
        """The same on the host, in memory of its own, to be encoded later. Raises ConfigError for what cannot be shown."""

    @abstractmethod
    def encoded(self) -> bytes:
        """The file, whole. Raises ConfigError for what cannot be one."""

    @cached_property
    def content(self) -> bytes:
        """What `encoded` gives, which is made once for all sinks."""
        return self.encoded()


@dataclass(frozen=True)
class Image(Shown):
    """A picture of shape (h, w) or (channels, h, w) with 1, 3 or 4 channels: uint8, or floats from 0 to 1. A PNG file.

    `pixels` may also be a function that gives them. It is called once, later and in another thread, so that training does
    not wait until they are drawn.
    """

    pixels: "torch.Tensor | NDArray[Any] | Callable[[], NDArray[Any]]"
    caption: str = ""
    suffix: ClassVar[str] = "png"

    def held(self) -> Self:
        if callable(self.pixels):
            return self
        shape = tuple(np.shape(self.pixels))
        if math.prod(shape[-2:]) > MOST_PIXELS:
            raise ConfigError(
                f"An Image has pixels of shape {shape}, which is more than {MOST_PIXELS:,}. Show a part of it, or make it "
                "smaller: torchvision.transforms.v2.functional.resize"
            )
        self._check(shape)
        return replace(self, pixels=_numpy(self.pixels).copy())

    def array(self) -> NDArray[np.uint8]:
        """(h, w, channels) of uint8."""
        found = _numpy(self.pixels() if callable(self.pixels) else self.pixels)
        self._check(found.shape)
        found = found[None] if found.ndim == 2 else found
        if found.dtype != np.uint8:
            found = np.nan_to_num(found.astype(np.float64)).clip(0, 1) * 255
        return np.ascontiguousarray(found.round().astype(np.uint8).transpose(1, 2, 0))

    def encoded(self) -> bytes:
        """Packed by zlib, which lets other threads run meanwhile; Pillow's encoder holds them up."""
        array = self.array()
        rows = array.reshape(array.shape[0], -1)
        filtered = np.full(
            (rows.shape[0], rows.shape[1] + 1), _UP, np.uint8
        )  # what a row differs by from the one above
        filtered[:, 1:] = rows
        filtered[1:, 1:] -= rows[:-1]
        height, width, channels = array.shape
        header = struct.pack(">IIBBBBB", width, height, 8, _COLOUR_TYPES[channels], 0, 0, 0)
        chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(filtered.tobytes(), 4)), (b"IEND", b""))
        packed = ((kind, content, zlib.crc32(content, zlib.crc32(kind))) for kind, content in chunks)
        return b"\x89PNG\r\n\x1a\n" + b"".join(
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", crc) for kind, content, crc in packed
        )

    def _check(self, shape: tuple[int, ...]) -> None:
        if 0 in shape or len(shape) not in (2, 3) or (len(shape) == 3 and shape[0] not in (1, 3, 4)):
            raise ConfigError(
                f"An Image has pixels of shape {shape}, and it wants (h, w) or (channels, h, w) with 1, 3 or 4 channels. "
                "Show one picture at a time, or put them side by side: torchvision.utils.make_grid"
            )


@dataclass(frozen=True)
class Table(Shown):
    """Rows of numbers and text under named columns. A CSV file."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    suffix: ClassVar[str] = "csv"

    def held(self) -> Self:
        return replace(self, columns=[str(name) for name in self.columns], rows=self.cells()[:MOST_ROWS])

    def cells(self) -> list[list[Any]]:
        """The rows with numbers and text alone. Raises ConfigError for a row of another length."""
        if odd := next((row for row in self.rows if len(row) != len(self.columns)), None):
            raise ConfigError(
                f"A Table has {len(self.columns)} columns, and a row of {len(odd)} cells. Give one a column"
            )
        return [[_cell(cell) for cell in row] for row in self.rows]

    def encoded(self) -> bytes:
        text = io.StringIO()
        csv.writer(text).writerows([list(self.columns), *self.cells()])
        return text.getvalue().encode("utf-8", "replace")

    def markdown(self) -> str:
        lines = [list(self.columns), ["---"] * len(self.columns), *self.cells()]
        return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)


@dataclass(frozen=True)
class Text(Shown):
    """A piece of text."""

    text: str
    suffix: ClassVar[str] = "txt"

    def held(self) -> Self:
        return replace(self, text=self.text[:MOST_CHARACTERS])

    def encoded(self) -> bytes:
        return self.text.encode("utf-8", "replace")


@dataclass(frozen=True)
class Audio(Shown):
    """Sound of shape (samples,) or (channels, samples), floats from -1 to 1, `rate` samples a second. A WAV file."""

    samples: "torch.Tensor | NDArray[Any]"
    rate: int
    suffix: ClassVar[str] = "wav"

    def held(self) -> Self:
        shape = tuple(np.shape(self.samples))
        self._check(shape)
        if shape[-1] > MOST_SAMPLES:
            raise ConfigError(
                f"An Audio has {shape[-1]:,} samples, which is more than {MOST_SAMPLES:,}. Show a part of it"
            )
        return replace(self, samples=_numpy(self.samples).copy())

    def array(self) -> NDArray[np.int16]:
        """(samples, channels) of int16."""
        found = _numpy(self.samples)
        self._check(found.shape)
        found = found[None] if found.ndim == 1 else found
        return np.ascontiguousarray((np.nan_to_num(found).clip(-1, 1) * 32767).round().astype("<i2").T)

    def encoded(self) -> bytes:
        array, file = self.array(), io.BytesIO()
        with wave.open(file, "wb") as sound:
            sound.setnchannels(array.shape[1])
            sound.setsampwidth(2)
            sound.setframerate(self.rate)
            sound.writeframes(array.tobytes())
        return file.getvalue()

    def _check(self, shape: tuple[int, ...]) -> None:
        if len(shape) not in (1, 2) or self.rate < 1:
            raise ConfigError(
                f"An Audio has samples of shape {shape} at {self.rate} a second, and it wants (samples,) or "
                "(channels, samples) at 1 or more"
            )


def _numpy(value: Any) -> NDArray[Any]:
    """On the host; of bfloat16, which NumPy lacks, as float."""
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        value = value.float() if value.is_floating_point() else value
        found: NDArray[Any] = value.numpy()
        return found
    return np.asarray(value)


def _cell(cell: Any) -> Any:
    if isinstance(cell, bool | int | float | str) or cell is None:
        return cell
    return (
        cell.item() if getattr(cell, "size", None) == 1 or (hasattr(cell, "numel") and cell.numel() == 1) else str(cell)
    )

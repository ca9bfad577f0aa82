"""Raw inputs to arrays, as preprocessing.json says: pictures, texts, sounds, indices, numbers, and tensors as they are."""

import io
import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from phalanx.exit.codes import ConfigError

from ...data.speech.decode import decode_bytes
from ...data.speech.log_mel import LogMel
from ...data.text.tokens.tokenizer import tokenizer_at
from ...data.vision.files.crops import middle

Sample = dict[str, NDArray[Any]]
DERIVED = ("mask", "length")  # kinds that are made of another input
FILES = ("image", "audio")  # kinds whose raw form is the content of a file
_PADDED = ("text", "audio")  # kinds of samples of different lengths that fill one batch
_MOST_PIXELS = 64_000_000
_LONGEST_S = 3600.0  # of a sound


class RawInputs:
    """What makes a batch of a model's inputs of raw ones.

    A raw input of kind image or audio is the content of a file; of text a str; of index a number, or an entry of its
    vocabulary; of number a number; of tensor numbers in nested lists, or an array. Where a model has several inputs that
    are not made of another one, a raw input is a dict of them, or a list in their order.
    """

    def __init__(
        self,
        forms: Mapping[str, Mapping[str, Any]],
        dtypes: Mapping[str, str],
        shapes: Mapping[str, Sequence[Any]],
        folder: Path | None,
    ) -> None:
        """`dtypes` and `shapes` by input, the latter with the batch first, and a name where a dimension varies.

        A file that `forms` name lies in `folder`, and nowhere else; where that is None it is a path. Raises ConfigError.
        """
        self.kinds = {name: str(form["kind"]) for name, form in forms.items() if form["kind"] not in DERIVED}
        if not self.kinds:
            raise ConfigError(f"No input of {', '.join(forms)} is made of a raw one. Export the run anew")
        self._forms, self._dtypes, self._shapes = forms, dtypes, shapes
        makers: Mapping[str, Callable[[Mapping[str, Any]], Callable[[Any], NDArray[Any]]]] = {
            **{"image": _image, "audio": _audio, "index": _index, "number": _number, "tensor": _tensor},
            "text": lambda form: _text(form, folder),
        }
        self._makers = {name: makers[kind](forms[name]) for name, kind in self.kinds.items()}

    def sample(self, raw: Any) -> Sample:
        """The arrays of one input, without a batch dimension. Raises ConfigError that says what is wrong with it."""
        return {name: self._made(name, value) for name, value in self._parts(raw).items()}

    def key(self, sample: Sample) -> tuple[Any, ...]:
        """Equal for samples that fit into one batch."""
        return tuple(array.shape for name, array in sample.items() if self.kinds[name] not in _PADDED)

    def batch(self, samples: Sequence[Sample]) -> dict[str, NDArray[Any]]:
        """The model's inputs by name, of samples of one key."""
        found = {name: self._filled(name, [sample[name] for sample in samples]) for name in self.kinds}
        for name, form in self._forms.items():
            if form["kind"] in DERIVED:
                lengths = np.array([len(sample[form["of"]]) for sample in samples])
                there = np.arange(found[form["of"]].shape[1]) < lengths[:, None]
                found[name] = lengths if form["kind"] == "length" else there
        return {name: found[name].astype(self._dtypes[name]) for name in self._forms}

    def _parts(self, raw: Any) -> dict[str, Any]:
        names = list(self.kinds)
        if len(names) == 1 and not (isinstance(raw, Mapping) and names[0] in raw):
            return {names[0]: raw}
        if isinstance(raw, list | tuple) and len(raw) == len(names):
            return dict(zip(names, raw, strict=True))
        if isinstance(raw, Mapping) and set(raw) == set(names):
            return {name: raw[name] for name in names}
        found = f"an object of {', '.join(map(str, raw)) or 'nothing'}" if isinstance(raw, Mapping) else _told(raw)
        raise ConfigError(f"an input is {' and '.join(names)}, and this one is {found}. Give each of them")

    def _made(self, name: str, value: Any) -> NDArray[Any]:
        try:
            array = self._makers[name](value)
        except (ConfigError, MemoryError):
            raise
        except Exception as error:  # of whatever library decodes it
            line = next(iter(str(error).splitlines()), "") or type(error).__name__
            raise ConfigError(f"{name} cannot be read as {_ARTICLES[self.kinds[name]]}: {line}") from None
        wanted = self._shapes.get(name, ())[1:]
        if wanted and (
            len(wanted) != array.ndim
            or any(isinstance(dim, int) and dim != size for dim, size in zip(wanted, array.shape, strict=True))
        ):
            raise ConfigError(f"{name} has the shape {_dims(array.shape)}, and the model takes {_dims(wanted)}")
        if self.kinds[name] == "tensor":
            self._check_held(name, array)
        return array

    def _check_held(self, name: str, array: NDArray[Any]) -> None:
        """Raises ConfigError for a number that another one would stand for in the model's dtype."""
        dtype = np.dtype(self._dtypes[name])
        with np.errstate(all="ignore"):
            cast = array.astype(dtype)
            held = np.isfinite(cast).all() if dtype.kind == "f" else (cast == array).all()
        if not held:
            raise ConfigError(f"{name} has a number that {dtype} does not hold")

    def _filled(self, name: str, arrays: Sequence[NDArray[Any]]) -> NDArray[Any]:
        if self.kinds[name] not in _PADDED:
            return np.stack(arrays)
        longest = max(1, *(len(array) for array in arrays))
        padding = self._forms[name].get("padding") or 0
        found = np.full((len(arrays), longest, *arrays[0].shape[1:]), padding, arrays[0].dtype)
        for row, array in zip(found, arrays, strict=True):
            row[: len(array)] = array
        return found


_ARTICLES = {
    kind: f"{'an' if kind[0] in 'aeiou' else 'a'} {kind}"
    for kind in ("image", "audio", "text", "index", "number", "tensor")
}


def picture(octets: bytes, channels: int) -> torch.Tensor:
    """The pixels (channels, h, w) of uint8 of a file's content, of any colours. Raises ConfigError."""
    from PIL import Image, UnidentifiedImageError

    if not isinstance(octets, bytes):
        raise ConfigError(f"a picture is the content of a file, and this is {_told(octets)}")
    try:
        with Image.open(io.BytesIO(octets)) as image:
            if image.width * image.height > _MOST_PIXELS:
                raise ConfigError(
                    f"the picture has {image.width} x {image.height} pixels, and {_MOST_PIXELS} are the most"
                )
            pixels = torch.from_numpy(np.array(image.convert("RGB" if channels == 3 else "L")))
    except (UnidentifiedImageError, Image.DecompressionBombError):
        raise ConfigError("this is no picture of a format that is known") from None
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        raise ConfigError(f"the picture cannot be decoded: {error}") from None
    return pixels.permute(2, 0, 1) if channels == 3 else pixels[None]


def _image(form: Mapping[str, Any]) -> Callable[[Any], NDArray[Any]]:
    channels, size = int(form["channels"]), form["size"]
    resize = None if form.get("resize") is None else int(form["resize"])
    mean, std = (torch.tensor(form[name], dtype=torch.float32)[:, None, None] for name in ("mean", "std"))

    from torchvision.transforms.v2 import functional  # it takes a second

    def make(octets: Any) -> NDArray[Any]:
        pixels = picture(octets, channels)
        if size is not None and resize is not None:
            plan = middle(pixels.shape[1], pixels.shape[2], (size[0], size[1]), resize)
            if math.prod(plan.size) > _MOST_PIXELS:
                raise ConfigError(
                    f"the picture of {pixels.shape[2]} x {pixels.shape[1]} pixels is too narrow: scaled to "
                    f"{plan.size[1]} x {plan.size[0]} it has more than {_MOST_PIXELS}"
                )
            pixels = plan.apply(pixels)
        elif size is not None:
            pixels = functional.resize(pixels, list(size), antialias=True)
        return np.asarray((pixels.float() / 255 - mean) / std)

    return make


def _audio(form: Mapping[str, Any]) -> Callable[[Any], NDArray[Any]]:
    rate, samples = int(form["sample_rate"]), form.get("samples")
    features = None if form.get("features") is None else LogMel(**form["features"])

    def make(octets: Any) -> NDArray[Any]:
        if not isinstance(octets, bytes):
            raise ConfigError(f"a sound is the content of a file, and this is {_told(octets)}")
        wave = torch.from_numpy(decode_bytes(octets, rate, "the sound", _LONGEST_S)).float() / 32768
        if samples is not None:
            wave = torch.nn.functional.pad(wave, (0, max(0, samples - len(wave))))[:samples]
        if features is None:
            return np.asarray(wave)
        return np.asarray(features(wave[None], torch.tensor([len(wave)]))[0][0])

    return make


def _text(form: Mapping[str, Any], folder: Path | None) -> Callable[[Any], NDArray[Any]]:
    encode = _encoder(form, folder)
    begin, end, length = form.get("begin"), form.get("end"), form.get("length")

    def make(text: Any) -> NDArray[Any]:
        if not isinstance(text, str):
            raise ConfigError(f"a text is wanted, and this is {_told(text)}")
        tokens = [*([] if begin is None else [begin]), *encode(text)]
        tokens = tokens if length is None else tokens[: length - (end is not None)]
        return np.array([*tokens, *([] if end is None else [end])], np.int64)

    return make


def _encoder(form: Mapping[str, Any], folder: Path | None) -> Callable[[str], Sequence[int]]:
    kind, lower = form["tokenizer"], bool(form.get("lower"))
    if kind == "bytes":
        return lambda text: tokenizer_at("bytes", lower).encode([text])[0].tolist()
    if kind == "file":
        file = Path(str(form["file"]))
        if folder is not None and file.name != str(file):
            raise ConfigError(f"The tokenizer {file} does not lie in the export. Export the run anew")
        tokenizer = tokenizer_at(str(file if folder is None else folder / file), lower)
        return lambda text: tokenizer.encode([text])[0].tolist()
    if kind not in ("characters", "words"):
        raise ConfigError(f"The tokenizer {kind!r} is unknown. It is bytes, characters, words or file")
    numbers = {str(entry): number for number, entry in enumerate(form["vocabulary"])}
    unknown = form.get("unknown")

    def encode(text: str) -> list[int]:
        text = text.lower() if lower else text
        parts = list(text) if kind == "characters" else re.findall(r"\S+", text)
        if unknown is None and (strange := [part for part in parts if part not in numbers]):
            raise ConfigError(f"the text has {strange[0]!r}, which is not in the vocabulary")
        return [numbers.get(part, unknown) for part in parts]  # type: ignore[misc]

    return encode


def _index(form: Mapping[str, Any]) -> Callable[[Any], NDArray[Any]]:
    entries, size = form.get("vocabulary"), form.get("size")
    numbers = None if entries is None else {str(entry): number for number, entry in enumerate(entries)}

    def make(value: Any) -> NDArray[Any]:
        if numbers is not None:
            if str(value) not in numbers:
                raise ConfigError(f"{value!r} is not in the vocabulary of {len(numbers)} entries")
            return np.array(numbers[str(value)])
        if isinstance(value, str) and re.fullmatch(r"\d{1,18}", value, re.ASCII):
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool) or value < 0 or (size is not None and value >= size):
            raise ConfigError(f"{value!r} is no whole number from 0 to {'…' if size is None else size - 1}")
        return np.array(value)

    return make


def _number(form: Mapping[str, Any]) -> Callable[[Any], NDArray[Any]]:
    mean, std = float(form["mean"]), float(form["std"])

    def make(value: Any) -> NDArray[Any]:
        number = math.nan if isinstance(value, bool) else float(value)
        if not math.isfinite(number):
            raise ConfigError(f"{value!r} is no finite number")
        return np.array((number - mean) / std)

    return make


def _tensor(form: Mapping[str, Any]) -> Callable[[Any], NDArray[Any]]:
    def make(value: Any) -> NDArray[Any]:
        array = np.asarray(value)
        if array.dtype.kind not in "biuf":
            raise ConfigError(f"numbers in lists of equal lengths are wanted, and this is {_told(value)}")
        if not np.isfinite(array).all():
            raise ConfigError("it has a number that is not finite")
        return array

    return make


def _told(value: Any) -> str:
    kinds: Mapping[type, str] = {
        **{str: "a text", bytes: "the content of a file", bool: "true or false", int: "a number", float: "a number"},
        **{list: f"a list of {len(value) if isinstance(value, list) else 0}", dict: "an object", type(None): "null"},
    }
    return kinds.get(type(value), type(value).__name__)


def _dims(shape: Sequence[Any]) -> str:
    return " x ".join(map(str, shape)) or "one number"

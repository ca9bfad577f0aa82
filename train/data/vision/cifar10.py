"""CIFAR-10 (Krizhevsky 2009, "Learning Multiple Layers of Features from Tiny Images") from its binary version.

The version for Python is a pickle, and is not read.
"""

import hashlib
import tarfile
import zlib
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from phalanx.common.files import sha256
from phalanx.exit.codes import ConfigError

from ...prepared.cache import Cache, Output, Recipe, fingerprint
from ...prepared.downloads import Download, Url
from ...prepared.mapped_array import MappedArray

SIZE = 32  # pixels a side
_RECORD = 1 + 3 * SIZE * SIZE  # a label, and the planes of red, green and blue
_MEMBERS = {
    "train": [f"cifar-10-batches-bin/data_batch_{n}.bin" for n in range(1, 6)],
    "test": ["cifar-10-batches-bin/test_batch.bin"],
}
_MEAN, _STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)  # of the training images, in units of 0..1

ARCHIVE = Download(
    [Url("https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz")],
    "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
    "none is stated; its authors ask to cite Krizhevsky 2009",
    "https://www.cs.toronto.edu/~kriz/cifar.html",
)


class Cifar10(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """One `split`, "train" (50,000) or "test" (10,000): images (3, 32, 32), standardised, and labels.

    `file` is cifar-10-binary.tar.gz where you have it; without one it is fetched. On the disk as bytes, mapped into memory.
    """

    classes = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

    def __init__(self, split: str, cache: Cache, download: bool = True, file: str | None = None) -> None:
        """Raises ConfigError for what is no archive of that version."""
        if split not in _MEMBERS:
            raise ConfigError(f"CIFAR-10 has no split {split!r}. Type split=train or split=test")
        folder = cache.prepared(_fetched() if file is None else _given(Path(file)), download)
        self._images = MappedArray(folder / f"{split}_images.npy")
        self.labels = torch.from_numpy(np.load(folder / f"{split}_labels.npy", allow_pickle=False).astype(np.int64))
        self._fingerprint = hashlib.sha256(f"{split} {fingerprint(folder)}".encode()).hexdigest()
        self._mean, self._std = torch.tensor(_MEAN), torch.tensor(_STD)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        images, labels = self.__getitems__([index])
        return images[0], labels[0]

    def __getitems__(self, indices: Sequence[int] | NDArray[np.int64]) -> tuple[torch.Tensor, torch.Tensor]:
        """Images (b, 3, 32, 32), in memory as rows of RGB pixels, and labels (b,)."""
        pixels = torch.from_numpy(self._images[np.asarray(indices)])
        floats = pixels.float().div_(255).sub_(self._mean).div_(self._std)
        return floats.permute(0, 3, 1, 2), self.labels[torch.as_tensor(indices)]

    def fingerprint(self) -> str:
        """SHA-256 in hex: equal for equal images, whichever way they came."""
        return self._fingerprint

    def preprocessing(self) -> dict[str, Any]:
        """What makes an input of a picture, for an export."""
        standard = {"mean": list(_MEAN), "std": list(_STD)}
        return {"kind": "image", "channels": 3, "size": [SIZE, SIZE], "resize": None, **standard}


def _fetched() -> Recipe:
    return Recipe("cifar10", 1, [ARCHIVE], lambda files, output: prepare(files[0], output))


def _given(file: Path) -> Recipe:
    try:
        digest = sha256(file)
    except OSError as error:
        raise ConfigError(
            f"file={file} cannot be read: {error.strerror}. Type where cifar-10-binary.tar.gz is, or file=null to fetch it"
        ) from None
    return Recipe("cifar10", 1, [], partial(_prepare_given, file), digest)


def _prepare_given(file: Path, files: Sequence[Path], output: Output) -> None:
    prepare(file, output)


def prepare(archive: Path, output: Output) -> None:
    """Write the images (n, 32, 32, 3) of uint8 and the labels (n,) of both splits. Raises ConfigError."""
    try:
        with tarfile.open(archive, "r:gz") as opened:
            found = {
                split: np.concatenate([_records(opened, archive, name) for name in names])
                for split, names in _MEMBERS.items()
            }
    except (OSError, EOFError, tarfile.TarError, zlib.error) as error:
        raise ConfigError(
            f"{archive} cannot be read as a .tar.gz: {error}. Fetch cifar-10-binary.tar.gz anew"
        ) from None
    for split, records in found.items():
        planes = records[:, 1:].reshape(-1, 3, SIZE, SIZE)
        output.array(f"{split}_images", np.ascontiguousarray(planes.transpose(0, 2, 3, 1)))
        output.array(f"{split}_labels", records[:, 0])


def _records(opened: tarfile.TarFile, archive: Path, name: str) -> NDArray[np.uint8]:
    """The records (n, 3073) of a member."""
    member = next((each for each in opened if each.name == name and each.isreg()), None)
    content = opened.extractfile(member) if member is not None else None
    if content is None:
        raise ConfigError(
            f"{archive} has no {name}. Give the binary version, cifar-10-binary.tar.gz; no pickle is read"
        )
    records = np.frombuffer(content.read(), np.uint8)
    if not len(records) or len(records) % _RECORD:
        raise ConfigError(f"{archive}, {name}: {len(records)} bytes are no images of {_RECORD} each. Fetch it anew")
    records = records.reshape(-1, _RECORD)
    if (wrong := np.flatnonzero(records[:, 0] >= len(Cifar10.classes))).size:
        raise ConfigError(
            f"{archive}, {name}: image {wrong[0] + 1} has the label {records[wrong[0], 0]}, and there are "
            f"{len(Cifar10.classes)} classes. Fetch it anew"
        )
    return records

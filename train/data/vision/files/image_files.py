"""Image files below a folder, one folder a class, as torchvision's ImageFolder has them."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from phalanx.exit.codes import ConfigError

SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
_SPLITS = {"train", "val", "valid", "validation", "test", "held_out"}  # folders that are rather splits than classes


@dataclass(frozen=True)
class ImageFiles:
    """The files, by their names below `root`, in the order of classes and names; labels index `classes`."""

    root: Path
    classes: list[str]
    names: list[str]
    labels: NDArray[np.int64]
    sizes: NDArray[np.int64]  # bytes

    def fingerprint(self) -> str:
        """SHA-256 in hex over classes, names and sizes: no file is read."""
        digest = sha256("\n".join(self.classes).encode("utf-8", "surrogateescape"))
        digest.update("\n".join(self.names).encode("utf-8", "surrogateescape"))
        digest.update(self.sizes.tobytes())
        return digest.hexdigest()


def find_images(root: str, classes_of: str | None) -> ImageFiles:
    """The images below root/CLASS, at any depth. Labels follow the sorted class folders, those of `classes_of` where set.

    Raises ConfigError for a folder that is not of this form, a class without an image, and an empty file.
    """
    folder = Path(root).expanduser().absolute()
    found = _class_folders(folder)
    classes = found if classes_of is None else _class_folders(Path(classes_of).expanduser().absolute())
    if unknown := sorted(set(found) - set(classes)):
        raise ConfigError(
            f"{folder} has the class folder {unknown[0]}, and {classes_of} has none of that name: its classes are "
            f"{_listed(classes)}. Give both the same class folders"
        )
    names, labels, sizes = list[str](), list[int](), list[int]()
    for name in found:
        before = len(names)
        for file, size in _images(folder / name, name):
            if not size:
                raise ConfigError(f"{folder / file} is empty. Bring the image back, or remove the file")
            names.append(file)
            sizes.append(size)
        if len(names) == before:
            raise ConfigError(
                f"{folder / name} holds no image ({', '.join(SUFFIXES)}). Put the images of the class {name} there, or "
                "remove the folder"
            )
        labels += [classes.index(name)] * (len(names) - before)
    return ImageFiles(folder, classes, names, np.array(labels, np.int64), np.array(sizes, np.int64))


def _class_folders(root: Path) -> list[str]:
    layout = (
        "It is to hold a folder of images for each class, such as cat/1.jpg. Set data.train.root and data.eval.root"
    )
    try:
        entries = list(os.scandir(root))
    except OSError as error:
        raise ConfigError(f"{root} cannot be listed: {error.strerror}. {layout}") from None
    folders = sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))
    if not folders:
        loose = [entry.name for entry in entries if entry.name.lower().endswith(SUFFIXES)]
        held = f"{len(loose)} images beside one another, such as {min(loose)}, and no folder" if loose else "no folder"
        raise ConfigError(f"{root} holds {held}. {layout}")
    if set(map(str.lower, folders)) <= _SPLITS:
        raise ConfigError(
            f"{root} holds {_listed(folders)}, which are splits and no classes. Set the root to {root}/{folders[0]}"
        )
    return folders


def _images(folder: Path, name: str) -> Iterator[tuple[str, int]]:
    """The images below `folder`, each as its name below the root and its size in bytes."""
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        for entry in entries:
            if entry.is_dir():
                yield from _images(folder / entry.name, f"{name}/{entry.name}")
            elif entry.name.lower().endswith(SUFFIXES) and not entry.name.startswith("."):
                yield f"{name}/{entry.name}", entry.stat().st_size
    except OSError as error:
        raise ConfigError(f"{error.filename or folder} cannot be read: {error.strerror}. Make it readable") from None


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")

"""Pictures of the user's own with a class for each pixel: a folder of pictures and one of masks."""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from phalanx.exit.codes import ConfigError

from .picture_file import picture_size, read_picture

_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")


class MaskFolder(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """Pictures (3, h, w), standardised, and masks (h, w) of uint8, of files that have one name but for the suffix.

    A mask is a PNG of one channel whose bytes are classes (grey, or a palette's indices). That each picture has a mask of
    its size is checked before training; a mask that is no such PNG is told by its file when it is read. Pictures of
    different sizes do not stack: give a `transforms` that cuts them to one, such as one of torchvision.transforms.v2, which
    gets (image, mask) and gives both changed; what it draws at random is seeded by the sample's position.
    """

    def __init__(
        self,
        images: str,
        masks: str,
        mean: Sequence[float] = (0.485, 0.456, 0.406),
        std: Sequence[float] = (0.229, 0.224, 0.225),
        transforms: Callable[..., Any] | None = None,
    ) -> None:
        self._files = _pairs(Path(images), Path(masks))
        self._mean, self._std = torch.tensor(mean)[:, None, None], torch.tensor(std)[:, None, None]
        self._transforms = transforms

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        picture, mask_file = self._files[index]
        image = torch.from_numpy(read_picture(picture, "RGB")).permute(2, 0, 1).float().div_(255)
        classes = read_picture(mask_file, None)
        if classes.ndim != 2 or classes.dtype not in (np.uint8, np.bool_):
            raise ConfigError(
                f"{mask_file} has pixels of {classes.dtype} and shape {classes.shape}. A mask is a PNG of one channel "
                "with a class of 0 to 255 at each pixel"
            )
        mask = torch.from_numpy(classes.astype(np.uint8))
        if self._transforms is not None:
            from torchvision import tv_tensors

            image, mask = self._transforms(tv_tensors.Image(image), tv_tensors.Mask(mask))
        return (_plain(image) - self._mean) / self._std, _plain(mask)

    def fingerprint(self) -> str:
        """SHA-256 in hex over names and sizes of the files, and the bytes of all masks."""
        digest = hashlib.sha256()
        for picture, mask in self._files:
            digest.update(f"{picture.name}\0{picture.stat().st_size}\0{mask.name}\0".encode())
            digest.update(mask.read_bytes())
        return digest.hexdigest()


def _plain(tensor: torch.Tensor) -> torch.Tensor:
    """Without what torchvision's transforms know it by."""
    return tensor.as_subclass(torch.Tensor)


def _pairs(images: Path, masks: Path) -> list[tuple[Path, Path]]:
    """Pictures with their masks, by name. Raises ConfigError that names what lacks."""
    for folder, key in ((images, "images"), (masks, "masks")):
        if not folder.is_dir():
            raise ConfigError(f"{folder} is no folder. Set data.train.{key} to the folder of the {key}")
    pictures = sorted(file for file in images.iterdir() if file.suffix.lower() in _SUFFIXES)
    if not pictures:
        raise ConfigError(f"{images} has no pictures ({', '.join(_SUFFIXES)}). Set data.train.images")
    pairs = []
    for picture in pictures:
        mask = masks / f"{picture.stem}.png"
        if not mask.is_file():
            raise ConfigError(f"{picture} has no mask: {mask} is no file")
        if (sizes := (picture_size(picture), picture_size(mask)))[0] != sizes[1]:
            (high, wide), (mask_high, mask_wide) = sizes
            raise ConfigError(
                f"{mask} has {mask_wide} x {mask_high} pixels, and its picture {picture.name} has {wide} x {high}"
            )
        pairs.append((picture, mask))
    return pairs

"""Images in folders, one a class: ImageNet's layout, and that of torchvision's ImageFolder."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.utils.data import Dataset

from phalanx.exit.codes import ConfigError

from ....prepared.cache import Cache
from .crops import CenterCrop, Crop, Plan
from .decode import Decode, check_scaled, decode, decode_scaled
from .image_files import find_images
from .standardise import Standardise
from .stored_images import StoredImages, recipe


class ImageFolder(Dataset[tuple[torch.Tensor, int]]):
    """Samples are images (3, size, size) of standardised floats, and labels: the number of the image's folder below `root`.

    `crop` is a `RandomCrop` or a `CenterCrop`; `transform` changes its pixels (3, size, size) of uint8 further, such as
    torchvision's v2.TrivialAugmentWide. What both draw at random is seeded by the sample's position in the run.
    `stored` keeps all images in the `cache`, decoded once and scaled to so many pixels of the shorter side: then no file is
    decoded in training, and random crops are cut out of the smaller images. `classes_of` is another root whose class
    folders number the classes, so that an evaluation set may lack some. EXIF rotations are left alone, as torchvision
    leaves them.

    Raises ConfigError, before training, for a folder of another form, an empty class and an empty file; a file that cannot
    be decoded is named once it is read.
    """

    def __init__(
        self,
        root: str,
        crop: Crop,
        mean: Sequence[float],
        std: Sequence[float],
        cache: Cache,
        classes_of: str | None = None,
        decode: Decode = Decode.exact,
        transform: Callable[[torch.Tensor], torch.Tensor] | None = None,
        stored: int | None = None,
    ) -> None:
        if not isinstance(crop, Crop):
            raise ConfigError(
                f"crop is a {type(crop).__name__}. Name phalanx.data.RandomCrop or phalanx.data.CenterCrop, and what else "
                "changes the pixels under transform"
            )
        files = find_images(root, classes_of)
        if decode is Decode.scaled:
            check_scaled()
        self._root, self._names = files.root, files.names
        self._fingerprint = files.fingerprint()
        self._crop, self._decode, self._transform = crop, decode, transform
        self._standardise = Standardise(mean, std)
        self._stored = None if stored is None else StoredImages(cache.prepared(recipe(files, stored), download=False))
        self.classes, self.labels = files.classes, torch.from_numpy(files.labels)

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        pixels = self._pixels(index)
        if self._transform is not None:
            pixels = self._changed(pixels, index)
        return self._standardise(pixels), int(self.labels[index])

    def collate(self, samples: Sequence[tuple[torch.Tensor, int]]) -> tuple[torch.Tensor, torch.Tensor]:
        """Images (b, 3, size, size) that stay in memory as rows of RGB pixels, which torch's own stacking would undo."""
        images = torch.stack([image.permute(1, 2, 0) for image, _ in samples]).permute(0, 3, 1, 2)
        return images, torch.tensor([label for _, label in samples])

    def fingerprint(self) -> str:
        """SHA-256 in hex over the names and sizes of the files."""
        return self._fingerprint

    def preprocessing(self) -> dict[str, Any]:
        """What makes an input of a picture, for an export."""
        resize = self._crop.resize if isinstance(self._crop, CenterCrop) else None
        size = [self._crop.size] * 2
        standard = {"mean": self._standardise.mean, "std": self._standardise.std}
        return {"kind": "image", "channels": 3, "size": size, "resize": resize, **standard}

    def _pixels(self, index: int) -> torch.Tensor:
        if self._stored is not None:
            kept: torch.Tensor = self._crop(self._stored[index])
            return kept
        path = self._root / self._names[index]
        if self._decode is Decode.exact:
            pixels: torch.Tensor = self._crop(decode(path))
            return pixels
        plans = dict[tuple[int, int], Plan]()  # by the image's size: a crop draws once

        def plan(height: int, width: int) -> Plan:
            if (height, width) not in plans:
                plans[height, width] = self._crop.plan(height, width)
            return plans[height, width]

        image = decode_scaled(path, lambda height, width: plan(height, width).factor())
        full = next(iter(plans), (image.shape[1], image.shape[2]))
        return plan(*full).apply(image, full)

    def _changed(self, pixels: torch.Tensor, index: int) -> torch.Tensor:
        assert self._transform is not None
        changed = self._transform(pixels)
        is_tensor = isinstance(changed, torch.Tensor)
        if not is_tensor or changed.dtype != torch.uint8 or changed.dim() != 3 or len(changed) != 3:
            found = f"{tuple(changed.shape)} {changed.dtype}" if is_tensor else type(changed).__name__
            raise ConfigError(
                f"The transform made {found} of {self._names[index]}, and its pixels are to stay (3, h, w) of torch.uint8. "
                "Leave out what converts and normalises them: mean and std do that"
            )
        return changed

"""Boxes in pictures of the user's own, from a JSON file in COCO's format (Lin et al. 2014) and a folder of pictures."""

import hashlib
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Dataset

from phalanx.exit.codes import ConfigError

from .picture_file import picture_size, read_picture

Targets = dict[str, torch.Tensor]
logger = logging.getLogger(__name__)

_SLACK = 1.0  # pixels by which a box may be over its picture, as rounding makes it; it is cut there


class CocoDetection(Dataset[tuple[torch.Tensor, Targets]]):
    """Pictures (3, h, w) of floats from 0 to 1 with `boxes` (n, 4), xyxy in pixels, and `labels` (n,) from 1 on.

    `annotations` is a JSON file with `images` (id, file_name), `annotations` (image_id, category_id, bbox as x, y, width,
    height) and `categories` (id, name); `images` is the folder of the files. Labels are the categories in the order of
    their ids, 0 being the background; `classes` are their names. Crowds (iscrowd: 1) are left out, and boxes of no
    width or height, of which COCO itself has some; of those a warning tells. Files and boxes are checked before training: a
    file that is not there, a box outside its picture, an id that nothing has are told by file and entry, with code 2.

    `transforms` gets (image, target) and gives both changed, such as one of torchvision.transforms.v2, for which the boxes
    are tv_tensors.BoundingBoxes then; what it draws at random is seeded by the sample's position.
    """

    def __init__(self, images: str, annotations: str, transforms: Callable[..., Any] | None = None) -> None:
        file = Path(annotations)
        content = _read(file)
        names = _categories(file, content)
        self.classes = ["background", *(name for _, name in sorted(names.items()))]
        labels = {kind: label for label, kind in enumerate(sorted(names), 1)}
        self._paths, sizes = _pictures(file, content, Path(images))
        boxes = _boxes(file, content, labels, sizes)
        self._ids = list(self._paths)
        self._targets = [_target(boxes[i]) for i in self._ids]
        self._transforms = transforms
        self._fingerprint = hashlib.sha256(file.read_bytes()).hexdigest()

    def __len__(self) -> int:
        return len(self._ids)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, Targets]:
        pixels = read_picture(self._paths[self._ids[index]], "RGB")
        image = torch.from_numpy(pixels).permute(2, 0, 1).float().div_(255)
        target = dict(self._targets[index])
        if self._transforms is None:
            return image, target
        from torchvision import tv_tensors

        boxes = tv_tensors.BoundingBoxes(target["boxes"], format="XYXY", canvas_size=image.shape[-2:])
        image, target = self._transforms(tv_tensors.Image(image), {**target, "boxes": boxes})
        return _plain(image), {name: _plain(value) for name, value in target.items()}

    def collate(self, samples: Sequence[tuple[torch.Tensor, Targets]]) -> tuple[list[torch.Tensor], list[Targets]]:
        """Lists of images and of targets, as torchvision's detectors take them."""
        return [image for image, _ in samples], [target for _, target in samples]

    def fingerprint(self) -> str:
        """SHA-256 in hex of the file of annotations."""
        return self._fingerprint


def _plain(tensor: torch.Tensor) -> torch.Tensor:
    """Without what torchvision's transforms know it by."""
    return tensor.as_subclass(torch.Tensor)


def _read(file: Path) -> Mapping[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(
            f"The annotations {file} cannot be read: {error.strerror}. Set data.train.annotations"
        ) from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file} is not UTF-8: {error.reason} at byte {error.start}. Save it as UTF-8") from None
    except json.JSONDecodeError as error:
        raise ConfigError(f"{file}:{error.lineno} is no JSON: {error.msg} at column {error.colno}") from None
    except RecursionError:
        raise ConfigError(f"{file} holds lists within lists without end, and no annotations") from None
    lacking = [
        name
        for name in ("images", "annotations", "categories")
        if not isinstance(content, dict) or not isinstance(content.get(name), list)
    ]
    if lacking:
        raise ConfigError(
            f"{file} has no list {', '.join(lacking)}. A file in COCO's format is an object with the lists images, "
            "annotations and categories"
        )
    found: Mapping[str, Any] = content
    return found


def _entry(file: Path, content: Mapping[str, Any], part: str, number: int, **kinds: type | tuple[type, ...]) -> Any:
    """An entry of a list, whose keys are there and of these kinds. Raises ConfigError that names file and entry."""
    entry = content[part][number]
    for key, kind in kinds.items():
        value = entry.get(key) if isinstance(entry, dict) else None
        if not isinstance(value, kind) or isinstance(value, bool):
            raise ConfigError(f"{file}: {part}[{number}] has {key}={value!r}. It wants {_WANTED[key]}")
    return entry


_WANTED = {
    "id": "a number",
    "name": "text",
    "file_name": "the name of a file",
    "image_id": "the id of an entry of images",
    "category_id": "the id of an entry of categories",
    "bbox": "[x, y, width, height] in pixels",
}


def _categories(file: Path, content: Mapping[str, Any]) -> dict[int, str]:
    names: dict[int, str] = {}
    for number in range(len(content["categories"])):
        entry = _entry(file, content, "categories", number, id=int, name=str)
        if entry["id"] in names:
            raise ConfigError(f"{file}: categories[{number}] has the id {entry['id']}, as one before. Give it its own")
        names[entry["id"]] = entry["name"]
    if not names:
        raise ConfigError(f"{file} has no categories, so that nothing can be found. Name what its boxes hold")
    return names


def _pictures(
    file: Path, content: Mapping[str, Any], folder: Path
) -> tuple[dict[int, Path], dict[int, tuple[int, int]]]:
    """Paths and (height, width) of the pictures by their ids, in the order of the file."""
    if not folder.is_dir():
        raise ConfigError(f"{folder} is no folder of pictures. Set data.train.images to the folder of those of {file}")
    paths: dict[int, Path] = {}
    for number in range(len(content["images"])):
        entry = _entry(file, content, "images", number, id=int, file_name=str)
        path = folder / entry["file_name"]
        if entry["id"] in paths:
            raise ConfigError(f"{file}: images[{number}] has the id {entry['id']}, as one before. Give it its own")
        if not path.is_file():
            raise ConfigError(f"{file}: images[{number}] names {entry['file_name']}, and {path} is no file")
        paths[entry["id"]] = path
    if not paths:
        raise ConfigError(f"{file} has no images, so there is nothing to train on")
    return paths, {each: picture_size(path) for each, path in paths.items()}


def _boxes(
    file: Path, content: Mapping[str, Any], labels: Mapping[int, int], sizes: Mapping[int, tuple[int, int]]
) -> dict[int, list[tuple[list[float], int]]]:
    """Boxes as x1, y1, x2, y2 with their labels, by the picture's id."""
    found: dict[int, list[tuple[list[float], int]]] = {each: [] for each in sizes}
    empty: list[str] = []
    for number in range(len(content["annotations"])):
        entry = _entry(file, content, "annotations", number, image_id=int, category_id=int, bbox=list)
        where = f"{file}: annotations[{number}]" + (f" (id {entry['id']})" if "id" in entry else "")
        if entry["image_id"] not in sizes:
            raise ConfigError(f"{where} is of the image {entry['image_id']}, which no entry of images has as its id")
        if entry["category_id"] not in labels:
            raise ConfigError(
                f"{where} is of the category {entry['category_id']}, and categories has {', '.join(map(str, labels))}"
            )
        corners = _corners(where, entry["bbox"], sizes[entry["image_id"]])
        if corners is None:
            empty.append(where)
        elif not entry.get("iscrowd"):
            found[entry["image_id"]].append((corners, labels[entry["category_id"]]))
    if empty:
        logger.warning("%s has a box without an area, which is left out, as are %d others", empty[0], len(empty) - 1)
    return found


def _corners(where: str, box: Sequence[Any], size: tuple[int, int]) -> list[float] | None:
    """x1, y1, x2, y2 within the picture; None of a box without an area. Raises ConfigError for what is no box there."""
    numbers = [value for value in box if isinstance(value, int | float) and not isinstance(value, bool)]
    if len(numbers) != 4 or len(box) != 4:
        raise ConfigError(f"{where} has bbox={list(box)!r}. It wants {_WANTED['bbox']}")
    left, top, width, height = map(float, numbers)
    if not (width >= 0 and height >= 0):
        raise ConfigError(
            f"{where} has a box of {width:g} x {height:g} pixels. {_WANTED['bbox']} is what it is to have"
        )
    right, bottom = left + width, top + height
    high, wide = size
    if not (left >= -_SLACK and top >= -_SLACK and right <= wide + _SLACK and bottom <= high + _SLACK):
        raise ConfigError(
            f"{where} has a box from ({left:g}, {top:g}) to ({right:g}, {bottom:g}), outside of its picture of {wide} x "
            f"{high} pixels. bbox is [x, y, width, height] from the upper left corner"
        )
    corners = [max(0.0, left), max(0.0, top), min(float(wide), right), min(float(high), bottom)]
    return corners if corners[2] > corners[0] and corners[3] > corners[1] else None


def _target(boxes: Sequence[tuple[list[float], int]]) -> Targets:
    corners = torch.tensor([box for box, _ in boxes], dtype=torch.float32).reshape(-1, 4)
    return {"boxes": corners, "labels": torch.tensor([label for _, label in boxes], dtype=torch.int64)}

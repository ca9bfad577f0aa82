"""Pictures of the user's own with boxes or masks: what is wrong in them is told by file and entry, before training."""

import copy
import json
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from phalanx.exit.codes import ConfigError
from phalanx.train.data.vision.coco_detection import CocoDetection
from phalanx.train.data.vision.mask_folder import MaskFolder

Content = dict[str, Any]
GOOD: Content = {
    "categories": [{"id": 7, "name": "dog"}, {"id": 3, "name": "cat"}],
    "images": [
        {"id": 1, "file_name": "one.png"},
        {"id": 5, "file_name": "two.jpg"},
        {"id": 6, "file_name": "none.png"},
    ],
    "annotations": [
        {"id": 11, "image_id": 1, "category_id": 3, "bbox": [2, 3, 10, 5]},
        {"id": 12, "image_id": 1, "category_id": 7, "bbox": [20.5, 0, 20, 30.4]},
        {"id": 13, "image_id": 5, "category_id": 7, "bbox": [0, 0, 8, 8]},
        {"id": 14, "image_id": 5, "category_id": 7, "bbox": [0, 0, 9, 9], "iscrowd": 1},
    ],
}


def written(folder: Path, content: Any) -> CocoDetection:
    pictures = folder / "pictures"
    pictures.mkdir()
    for name, (height, width) in {"one.png": (30, 40), "two.jpg": (16, 12), "none.png": (8, 8)}.items():
        Image.fromarray(np.full((height, width, 3), 200, np.uint8)).save(pictures / name)
    (pictures / "broken.png").write_bytes(b"no picture")
    (folder / "boxes.json").write_text(content if isinstance(content, str) else json.dumps(content))
    return CocoDetection(str(pictures), str(folder / "boxes.json"))


def test_boxes_of_coco_become_corners_and_labels_from_one_on(tmp_path: Path) -> None:
    found = written(tmp_path, GOOD)
    assert found.classes == ["background", "cat", "dog"]
    image, target = found[0]
    assert image.shape == (3, 30, 40)
    assert image.max() == pytest.approx(200 / 255)
    assert target["boxes"].tolist() == [[2, 3, 12, 8], [20.5, 0, 40, 30]]  # cut at the edge by half a pixel
    assert target["labels"].tolist() == [1, 2]
    assert found[1][1]["boxes"].tolist() == [[0, 0, 8, 8]]  # without the crowd
    assert found[2][1]["boxes"].shape == (0, 4)
    images, targets = found.collate([found[0], found[1]])
    assert [tuple(each.shape) for each in images] == [(3, 30, 40), (3, 16, 12)]
    assert len(targets) == 2


def test_boxes_without_an_area_are_left_out_and_told_as_coco_itself_has_some(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    content = copy.deepcopy(GOOD)
    content["annotations"] += [
        {"id": 20, "image_id": 1, "category_id": 3, "bbox": [3, 3, 0, 5]},
        {"id": 21, "image_id": 6, "category_id": 3, "bbox": [8.5, 3, 0.5, 5]},
    ]
    found = written(tmp_path, content)
    assert [len(found[i][1]["boxes"]) for i in range(3)] == [2, 1, 0]
    assert "annotations[4] (id 20) has a box without an area, which is left out, as are 1 others" in caplog.text


def test_transforms_change_pictures_and_boxes_alike(tmp_path: Path) -> None:
    from torchvision.transforms import v2

    plain = written(tmp_path, GOOD)
    flipped = CocoDetection(
        str(tmp_path / "pictures"), str(tmp_path / "boxes.json"), transforms=v2.RandomHorizontalFlip(1.0)
    )
    assert flipped[0][1]["boxes"].tolist() == [[28, 3, 38, 8], [0, 0, 19.5, 30]]
    assert torch.equal(flipped[0][0], plain[0][0].flip(-1))
    assert type(flipped[0][1]["boxes"]) is type(flipped[0][0]) is torch.Tensor


def change(part: str, number: int, **values: Any) -> Callable[[Content], Any]:
    def changed(content: Content) -> Content:
        content[part][number].update(values)
        return content

    return changed


def without(part: str) -> Callable[[Content], Any]:
    return lambda content: {name: value for name, value in content.items() if name != part}


DAMAGES: dict[str, tuple[Callable[[Content], Any], str]] = {
    "no JSON": (lambda content: '{"images": [\n1,,', "boxes.json:2 is no JSON"),
    "a list": (lambda content: [], "has no list images, annotations, categories"),
    "a part lacks": (without("categories"), "has no list categories"),
    "no categories": (lambda content: {**content, "categories": []}, "has no categories"),
    "no images": (lambda content: {**content, "images": [], "annotations": []}, "has no images"),
    "no such file": (change("images", 1, file_name="three.jpg"), "images[1] names three.jpg, and"),
    "no picture": (change("images", 1, file_name="broken.png"), "broken.png cannot be read as a picture"),
    "an id twice": (change("images", 1, id=1), "images[1] has the id 1, as one before"),
    "a category twice": (change("categories", 1, id=7), "categories[1] has the id 7, as one before"),
    "another category": (change("annotations", 2, category_id=4), "annotations[2] (id 13) is of the category 4"),
    "another image": (change("annotations", 0, image_id=9), "annotations[0] (id 11) is of the image 9"),
    "outside": (
        change("annotations", 1, bbox=[30, 0, 20, 5]),
        "annotations[1] (id 12) has a box from (30, 0) to (50, 5)",
    ),
    "left of it": (change("annotations", 1, bbox=[-3, 0, 20, 5]), "outside of its picture of 40 x 30 pixels"),
    "less than no area": (change("annotations", 0, bbox=[3, 3, -2, 5]), "annotations[0] (id 11) has a box of -2 x 5"),
    "nested": (lambda content: "[" * 100_000, "lists within lists"),
    "not finite": (change("annotations", 0, bbox=[3, 3, float("nan"), 5]), "annotations[0] (id 11) has a box of nan"),
    "three numbers": (change("annotations", 0, bbox=[3, 3, 5]), "annotations[0] (id 11) has bbox=[3, 3, 5]"),
    "corners as text": (change("annotations", 0, bbox="3 3 5 5"), "annotations[0] has bbox='3 3 5 5'"),
    "an id as text": (change("annotations", 3, image_id="5"), "annotations[3] has image_id='5'"),
    "no name": (change("categories", 0, name=None), "categories[0] has name=None. It wants text"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_is_wrong_in_annotations_is_told_by_file_and_entry(tmp_path: Path, damage: str) -> None:
    changed, told = DAMAGES[damage]
    with pytest.raises(ConfigError) as refused:
        written(tmp_path, changed(copy.deepcopy(GOOD)))
    assert told in str(refused.value)
    assert str(tmp_path) in str(refused.value) or "categories" in told


def masked(folder: Path, **masks: Any) -> MaskFolder:
    """Pictures of 20 x 30, and for each name a mask file with these pixels."""
    for name in ("pictures", "masks"):
        (folder / name).mkdir()
    for name, pixels in masks.items():
        Image.fromarray(np.full((20, 30, 3), 51, np.uint8)).save(folder / "pictures" / f"{name}.jpg")
        if pixels is not None:
            Image.fromarray(np.asarray(pixels)).save(folder / "masks" / f"{name}.png")
    return MaskFolder(str(folder / "pictures"), str(folder / "masks"), mean=[0.2] * 3, std=[0.5] * 3)


def test_masks_are_found_by_the_names_of_their_pictures(tmp_path: Path) -> None:
    first = np.arange(600).reshape(20, 30).astype(np.uint8) % 3
    found = masked(tmp_path, b=first + 1, a=first)
    assert len(found) == 2
    image, mask = found[0]
    assert image.shape == (3, 20, 30)
    assert image.abs().max() < 0.02
    assert torch.equal(mask, torch.from_numpy(first))
    assert torch.equal(found[1][1], mask + 1)
    before = found.fingerprint()
    Image.fromarray(first * 2).save(tmp_path / "masks" / "a.png")
    assert found.fingerprint() != before


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_grey_of_few_bits_is_classes_and_not_brightness(tmp_path: Path, bits: int) -> None:
    """Pillow lifts grey of 2 and 4 bits to 0 to 255: of two bits class 3 was read as 255, of which nothing is known."""
    masked(tmp_path, a=np.zeros((20, 30), np.uint8))
    number = 2**bits - 1

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    row = b"\0" + bytes([255] * 2) + bytes((30 * bits + 7) // 8 - 2)  # white, and then black
    header = struct.pack(">IIBBBBB", 30, 20, bits, 0, 0, 0, 0)
    png = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(row * 20)) + chunk(b"IEND", b"")
    (tmp_path / "masks" / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + png)
    _, mask = MaskFolder(str(tmp_path / "pictures"), str(tmp_path / "masks"))[0]
    assert sorted(set(mask.flatten().tolist())) == [0, number]
    assert int((mask == number).sum()) == 20 * 16 // bits


BAD_MASKS: dict[str, tuple[Any, str]] = {
    "none": (None, "a.jpg has no mask"),
    "another size": (np.zeros((10, 30), np.uint8), "a.png has 30 x 10 pixels, and its picture a.jpg has 30 x 20"),
    "colours": (np.zeros((20, 30, 3), np.uint8), "a.png has pixels of uint8 and shape (20, 30, 3)"),
    "16 bits": (np.zeros((20, 30), np.uint16), "a.png has pixels of"),
}


@pytest.mark.parametrize("kind", BAD_MASKS)
def test_a_mask_that_is_none_is_told_by_its_file(tmp_path: Path, kind: str) -> None:
    pixels, told = BAD_MASKS[kind]
    with pytest.raises(ConfigError) as refused:
        masked(tmp_path, a=pixels)[0]
    assert told in str(refused.value)
    assert str(tmp_path) in str(refused.value)

"""Images in class folders: the samples are torchvision's, seeded by position, and what is wrong with a folder is said."""

import copy
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.datasets import ImageFolder as TorchvisionFolder
from torchvision.transforms import v2

from phalanx.data import CenterCrop, ImageFolder, RandomCrop
from phalanx.exit.codes import ConfigError
from phalanx.train.data.vision.files import decode, stored_images
from phalanx.train.data.vision.files.decode import Decode
from phalanx.train.prepared.cache import Cache
from tests.train.data.vision.photographs import write_photographs

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
LEVEL = 1 / 255 / min(STD)  # one of 256 levels, standardised


def random_crop(size: int) -> RandomCrop:
    return RandomCrop(size, scale=[0.08, 1.0], ratio=[3 / 4, 4 / 3], flip=0.5)


def folder(root: Path, crop: RandomCrop | CenterCrop | None = None, **more: object) -> ImageFolder:
    return ImageFolder(str(root), crop or random_crop(56), MEAN, STD, Cache(root.parent / "cache"), **more)  # type: ignore[arg-type]


def standard(*transforms: torch.nn.Module) -> v2.Compose:
    return v2.Compose([*transforms, v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)])


def test_random_crops_and_flips_are_torchvisions_from_equal_seeds(tmp_path: Path) -> None:
    """Also of a strip, which no part of the drawn shapes fits; Pillow and torch scale alike but for rounding."""
    write_photographs(tmp_path, 5)
    Image.new("RGB", (300, 12), (200, 30, 90)).save(tmp_path / "flower" / "strip.png")
    ours = folder(tmp_path)
    theirs = TorchvisionFolder(str(tmp_path), standard(v2.RandomResizedCrop(56), v2.RandomHorizontalFlip()))
    assert len(ours) == len(theirs) == 11
    assert ours.classes == theirs.classes
    for index in range(len(ours)):
        for seed in range(5):
            torch.manual_seed(seed)
            image, label = ours[index]
            torch.manual_seed(seed)
            expected, expected_label = theirs[index]
            assert label == expected_label
            assert (image - expected).abs().max() < 1.01 * LEVEL
            assert ((image - expected).abs() > 1e-4).float().mean() < 0.2


def test_the_middle_of_an_image_is_torchvisions(tmp_path: Path) -> None:
    write_photographs(tmp_path, 2, (161, 120))
    write_photographs(tmp_path / "more", 1, (90, 131))
    for root in (tmp_path / "china", tmp_path / "more"):
        found = folder(root if root.name == "more" else tmp_path, CenterCrop(56, 64))
        theirs = TorchvisionFolder(str(found._root), standard(v2.Resize(64), v2.CenterCrop(56)))
        image, expected = found[0][0], theirs[0][0]
        assert (image - expected).abs().max() < 1.01 * LEVEL


def test_samples_lie_in_memory_as_convolutions_want_them(tmp_path: Path) -> None:
    found = folder(write_photographs(tmp_path, 2))
    batch, labels = found.collate([found[0], found[3]])
    assert batch.is_contiguous(memory_format=torch.channels_last)
    assert labels.tolist() == [0, 1]


def test_decoders_give_equal_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("simplejpeg")
    root = write_photographs(tmp_path, 2, (161, 121))
    found = [decode.decode(path) for path in sorted(root.rglob("*.jpg"))]
    monkeypatch.setattr(decode, "_simplejpeg", lambda: None)
    for image, path in zip(found, sorted(root.rglob("*.jpg")), strict=True):
        assert torch.equal(image, decode.decode(path))
    with pytest.raises(ConfigError, match=r"decode=scaled needs simplejpeg.*pip install"):
        folder(root, decode=Decode.scaled)


def test_scaled_decoding_differs_by_little_and_only_where_a_crop_is_shrunk_by_two(tmp_path: Path) -> None:
    pytest.importorskip("simplejpeg")
    root = write_photographs(tmp_path, 4, (400, 300))
    exact, scaled = (folder(root, decode=how) for how in (Decode.exact, Decode.scaled))
    differences = []
    for index in range(len(exact)):
        for seed in range(4):
            torch.manual_seed(seed)
            image = exact[index][0]
            torch.manual_seed(seed)
            differences.append(float((scaled[index][0] - image).abs().mean()) / LEVEL)
    assert max(differences) < 8  # of 256 levels, the mean over an image
    assert sum(difference > 1e-4 for difference in differences) > len(differences) / 2
    whole = folder(root, random_crop(299), decode=Decode.scaled)
    torch.manual_seed(0)
    image = whole[0][0]
    torch.manual_seed(0)
    assert torch.equal(image, folder(root, random_crop(299))[0][0])


def test_a_transform_of_torchvision_changes_the_pixels_and_may_not_change_their_form(tmp_path: Path) -> None:
    root = write_photographs(tmp_path, 1)
    plain, inverted = folder(root, CenterCrop(56, 64)), folder(root, CenterCrop(56, 64), transform=v2.RandomInvert(p=1))
    mean = torch.tensor(MEAN)[:, None, None] / torch.tensor(STD)[:, None, None]
    assert torch.allclose(plain[0][0] + inverted[0][0], (1 / torch.tensor(STD))[:, None, None] - 2 * mean, atol=1e-5)
    with pytest.raises(ConfigError, match=r"The transform made \(3, 56, 56\) torch.float32 of china/000.jpg"):
        folder(root, transform=v2.ToDtype(torch.float32))[0]


def test_a_folder_of_another_form_is_refused_with_its_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="photos cannot be listed: No such file"):
        folder(tmp_path / "photos")
    with pytest.raises(ConfigError, match=r"holds no folder\. It is to hold a folder of images for each class"):
        folder(tmp_path)
    write_photographs(tmp_path / "val", 1)
    with pytest.raises(
        ConfigError, match=rf"holds val, which are splits and no classes.*{re.escape(str(tmp_path))}/val"
    ):
        folder(tmp_path)
    with pytest.raises(ConfigError, match=r"1 images beside one another, such as 000\.jpg"):
        folder(tmp_path / "val" / "china")
    (tmp_path / "val" / "dogs").mkdir()
    (tmp_path / "val" / "dogs" / "readme.txt").write_text("none yet")
    with pytest.raises(ConfigError, match=r"val/dogs holds no image .*\. Put the images of the class dogs there"):
        folder(tmp_path / "val")
    (tmp_path / "val" / "dogs" / "1.jpg").touch()
    with pytest.raises(ConfigError, match=r"dogs/1\.jpg is empty"):
        folder(tmp_path / "val")


def test_classes_are_those_of_training(tmp_path: Path) -> None:
    write_photographs(tmp_path / "train", 1)
    write_photographs(tmp_path / "held_out", 1)
    for file in (tmp_path / "held_out" / "china").iterdir():
        file.unlink()
    (tmp_path / "held_out" / "china").rmdir()
    alone = folder(tmp_path / "held_out", classes_of=str(tmp_path / "train"))
    assert alone.classes == ["china", "flower"]
    assert alone.labels.tolist() == [1]
    with pytest.raises(ConfigError, match=r"has the class folder china, and .*held_out has none of that name"):
        folder(tmp_path / "train", classes_of=str(tmp_path / "held_out"))


def test_a_damaged_image_is_named(tmp_path: Path) -> None:
    root = write_photographs(tmp_path, 1)
    path = root / "china" / "000.jpg"
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], b"<html>404</html>", whole[:2]):
        path.write_bytes(content)
        with pytest.raises(ConfigError, match=r"china/000\.jpg cannot be decoded: .*\. Bring back a whole copy"):
            folder(root)[0]
        with pytest.raises(ConfigError, match=r"china/000\.jpg cannot be decoded"):
            folder(root, decode=Decode.scaled)[0]


def test_images_of_other_kinds_become_rgb(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    pixels = np.arange(64 * 64, dtype=np.uint8).reshape(64, 64)
    kinds = {"L": "png", "P": "png", "CMYK": "jpg", "RGBA": "png", "1": "bmp"}
    for mode, suffix in kinds.items():
        Image.fromarray(pixels).convert(mode).save(tmp_path / "a" / f"{mode}.{suffix}")
    Image.fromarray(pixels).save(tmp_path / "a" / "grey.jpg")
    found = folder(tmp_path, CenterCrop(56, 56))
    assert {found[i][0].shape for i in range(len(found))} == {(3, 56, 56)}


def test_the_fingerprint_follows_the_files(tmp_path: Path) -> None:
    root = write_photographs(tmp_path, 2)
    before = folder(root).fingerprint()
    assert folder(root, CenterCrop(32, 32)).fingerprint() == before
    (root / "china" / "000.jpg").rename(root / "flower" / "100.jpg")
    assert folder(root).fingerprint() != before


def test_stored_images_are_the_files_scaled_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In several shards, of images of several sizes, some of them smaller than what is stored; in a worker, too."""
    monkeypatch.setattr(stored_images, "_SHARD", 3)
    root = write_photographs(tmp_path / "photos", 5)
    Image.new("RGB", (50, 40), (200, 30, 90)).save(root / "flower" / "small.png")
    whole, stored = folder(root, CenterCrop(32, 80)), folder(root, CenterCrop(32, 80), stored=80)
    assert len(stored) == 11
    for index in range(11):
        assert torch.equal(stored[index][0], whole[index][0])
    assert stored._stored is not None
    assert stored._stored[10].shape == (3, 40, 50)
    assert stored._stored[0].shape == (3, 80, 106)
    sent = copy.deepcopy(stored)  # as it is sent to a worker
    assert sent._stored is not None
    assert sent._stored._shards == {}
    assert torch.equal(sent[7][0], stored[7][0])
    images, _ = stored.collate([stored[0], stored[1]])
    images.mul_(0)
    assert torch.equal(stored[0][0], whole[0][0])
    for file in root.rglob("*.jpg"):
        file.write_bytes(bytes(file.stat().st_size))  # no file is read again
    assert torch.equal(folder(root, CenterCrop(32, 80), stored=80)[3][0], stored[3][0])


def test_preparing_goes_on_at_the_shard_where_it_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Here by a damaged file, which is named; what was written before is not decoded again."""
    monkeypatch.setattr(stored_images, "_SHARD", 2)
    root = write_photographs(tmp_path / "photos", 3)
    last = root / "flower" / "002.jpg"
    content = last.read_bytes()
    before = folder(root, CenterCrop(32, 64))
    decoded = list[str]()

    def noted(path: Path) -> torch.Tensor:
        decoded.append(path.name)
        return decode.decode(path)

    monkeypatch.setattr(stored_images, "decode", noted)
    last.write_bytes(content[: len(content) // 2] + bytes(len(content) - len(content) // 2))
    with pytest.raises(ConfigError, match=r"flower/002\.jpg cannot be decoded"):
        folder(root, CenterCrop(32, 64), stored=64)
    assert len(decoded) == 6
    decoded.clear()
    last.write_bytes(content)
    found = folder(root, CenterCrop(32, 64), stored=64)
    assert len(decoded) == 2
    assert torch.equal(found[0][0], before[0][0])


def test_too_little_room_is_said_before_anything_is_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write_photographs(tmp_path / "photos", 1)
    monkeypatch.setattr("shutil.disk_usage", lambda folder: SimpleNamespace(free=10_000))
    with pytest.raises(ConfigError, match=r"2 images take about 0\.0 GB as pixels, .* Type data\.cache="):
        folder(root, stored=64)

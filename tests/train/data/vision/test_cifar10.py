"""CIFAR-10 is read from its binary version, as its authors describe it, and from nothing else."""

import io
import tarfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from phalanx.data import Cifar10
from phalanx.exit.codes import ConfigError
from phalanx.train.data.vision import cifar10
from phalanx.train.prepared.cache import Cache

NAMES = [name for names in cifar10._MEMBERS.values() for name in names]


def records(name: str) -> NDArray[np.uint8]:
    """Two images of a file; each pixel differs from its neighbours, its other channels and those of other files."""
    made = np.random.default_rng(NAMES.index(name)).integers(0, 256, (2, 3073), np.uint8)
    made[:, 0] = NAMES.index(name), 9
    return made


def contents() -> dict[str, bytes]:
    return {name: records(name).tobytes() for name in NAMES}


def archive(path: Path, members: Mapping[str, bytes]) -> str:
    with tarfile.open(path, "w:gz") as opened:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            opened.addfile(member, io.BytesIO(content))
    return str(path)


def test_images_have_their_channels_rows_and_labels(tmp_path: Path) -> None:
    file = archive(tmp_path / "c.tar.gz", {"readme.html": b"", **contents()})
    train, test = (Cifar10(split, Cache(tmp_path / "cache"), file=file) for split in ("train", "test"))
    assert (len(train), len(test)) == (10, 2)
    assert train.labels.tolist() == [0, 9, 1, 9, 2, 9, 3, 9, 4, 9]
    images, labels = train.__getitems__(np.array([5, 0]))
    assert (tuple(images.shape), images.dtype, labels.tolist()) == ((2, 3, 32, 32), torch.float32, [9, 0])
    mean, std = (torch.tensor(each).view(3, 1, 1) for each in (cifar10._MEAN, cifar10._STD))
    levels = ((images * std + mean) * 255).round().to(torch.uint8)
    assert np.array_equal(levels[0].numpy(), records(NAMES[2])[1, 1:].reshape(3, 32, 32))  # planes of rows
    one, label = train[5]
    assert torch.equal(one, images[0])
    assert label.item() == 9
    assert train.preprocessing()["size"] == [32, 32]


def test_the_archive_is_read_once_and_the_same_images_have_one_fingerprint(tmp_path: Path) -> None:
    file = archive(tmp_path / "c.tar.gz", contents())
    again = archive(tmp_path / "other.tar.gz", {"more": b"x", **contents()})
    cache = Cache(tmp_path / "cache")
    first, other = Cifar10("test", cache, file=file), Cifar10("test", cache, file=again)
    assert first.fingerprint() == other.fingerprint() != Cifar10("train", cache, file=file).fingerprint()
    assert len([folder for folder in cache.folder.glob("cifar10-*") if folder.is_dir()]) == 2


def test_the_fetched_archive_is_read_as_a_given_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = Path(archive(tmp_path / "c.tar.gz", contents()))
    monkeypatch.setattr(type(cifar10.ARCHIVE), "get", lambda download, folder: file)
    fetched = Cifar10("test", Cache(tmp_path / "fetched"))
    assert fetched.fingerprint() == Cifar10("test", Cache(tmp_path / "given"), False, str(file)).fingerprint()
    with pytest.raises(ConfigError, match=r"does not hold the data set cifar10. Type phalanx prepare"):
        Cifar10("test", Cache(tmp_path / "none"), download=False)


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({NAMES[1]: None}, r"has no cifar-10-batches-bin/data_batch_2.bin. Give the binary version"),
        ({NAMES[5]: b""}, r"c.tar.gz, cifar-10-batches-bin/test_batch.bin: 0 bytes are no images"),
        ({NAMES[0]: bytes(3072)}, r"data_batch_1.bin: 3072 bytes are no images of 3073 each"),
        ({NAMES[3]: bytes(3073) + bytes([10]) * 3073}, r"data_batch_4.bin: image 2 has the label 10, and there are 10"),
    ],
)
def test_what_is_no_binary_version_is_named_by_file(
    tmp_path: Path, changed: dict[str, bytes | None], told: str
) -> None:
    members = {name: content for name, content in {**contents(), **changed}.items() if content is not None}
    file = archive(tmp_path / "c.tar.gz", members)
    with pytest.raises(ConfigError, match=told):
        Cifar10("train", Cache(tmp_path / "cache"), file=file)
    assert not list((tmp_path / "cache").glob("cifar10-*"))


def test_a_damaged_or_missing_archive_is_a_message(tmp_path: Path) -> None:
    whole = Path(archive(tmp_path / "c.tar.gz", contents())).read_bytes()
    for name, content in (("cut", whole[: len(whole) // 2]), ("text", b"no archive")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ConfigError, match=rf"{name} cannot be read as a .tar.gz"):
            Cifar10("train", Cache(tmp_path / "cache"), file=str(tmp_path / name))
    with pytest.raises(ConfigError, match=r"none cannot be read: No such file"):
        Cifar10("train", Cache(tmp_path / "cache"), file=str(tmp_path / "none"))
    with pytest.raises(ConfigError, match=r"no split 'val'"):
        Cifar10("val", Cache(tmp_path / "cache"))

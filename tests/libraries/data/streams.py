"""Streams of webdataset and of Hugging Face, as configs name them."""

import io
import tarfile
from pathlib import Path
from typing import Any

import numpy as np

from tests.runs.data.streams import sample


def write_shards(folder: Path, shards: int, samples: int) -> None:
    """Tar files with `samples` samples each, as webdataset reads them: an array and a number."""
    folder.mkdir()
    for shard in range(shards):
        with tarfile.open(folder / f"{shard}.tar", "w") as tar:
            for number in range(shard * samples, (shard + 1) * samples):
                array = io.BytesIO()
                np.save(array, sample(number)["x"].numpy())
                for name, octets in ((f"{number:04}.x.npy", array.getvalue()), (f"{number:04}.cls", b"%d" % number)):
                    info = tarfile.TarInfo(name)
                    info.size = len(octets)
                    tar.addfile(info, io.BytesIO(octets))


def tars(folder: str, shards: int, splits: bool = True, buffer: int = 0) -> Any:
    """`buffer` samples are shuffled, by a fixed seed."""
    import webdataset

    urls = [f"{folder}/{shard}.tar" for shard in range(shards)]
    splitter = webdataset.split_by_node if splits else None
    made = webdataset.WebDataset(
        urls, nodesplitter=splitter, shardshuffle=bool(buffer) * shards, seed=3, detshuffle=True
    )
    if buffer:
        made = made.shuffle(buffer, seed=5)
    return made.decode().rename(x="x.npy", number="cls").map(_fields)


def _fields(found: dict[str, Any]) -> dict[str, Any]:
    return {"x": found["x"], "number": found["number"]}


def rows(samples: int, shards: int, buffer: int = 0) -> Any:
    """A data set of Hugging Face's, streamed."""
    from datasets import Dataset

    held = {"x": [sample(number)["x"].tolist() for number in range(samples)], "number": [*range(samples)]}
    made = Dataset.from_dict(held).to_iterable_dataset(num_shards=shards)
    if buffer:
        made = made.shuffle(seed=7, buffer_size=buffer)
    return made.map(_as_arrays)


def _as_arrays(row: dict[str, Any]) -> dict[str, Any]:
    return {"x": np.array(row["x"]) + np.random.randn() / 100, "number": row["number"]}

"""Data are prepared once, whole or not at all, however many ask and whatever is killed."""

import hashlib
import json
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from multiprocessing.reduction import ForkingPickler
from pathlib import Path

import numpy as np
import pytest

from phalanx.exit.codes import ConfigError
from phalanx.train.prepared.cache import MANIFEST, Cache, Output, Recipe, damaged, fingerprint
from phalanx.train.prepared.downloads import Download
from phalanx.train.prepared.mapped_array import MappedArray
from tests.ranks import ROOT

ABC = hashlib.sha256(b"abc").hexdigest()


class Local:
    """A way that puts `content` there, and counts in `log` how often."""

    def __init__(self, content: bytes, log: Path) -> None:
        self.content, self.log = content, log

    def fetch(self, folder: Path, sha256: str) -> Path:
        with self.log.open("a") as file:
            file.write("x")
        (folder / "file").write_bytes(self.content)
        return folder / "file"


class Broken:
    def fetch(self, folder: Path, sha256: str) -> Path:
        raise OSError("no route to host")


def write(files: Sequence[Path], output: Output) -> None:
    output.array("x", np.arange(5))
    output.json("words.json", [file.read_text() for file in files])


def recipe(
    log: Path, content: bytes = b"abc", write: Callable[[Sequence[Path], Output], None] = write, options: object = None
) -> Recipe:
    download = Download((Broken(), Local(content, log)), ABC, "CC0", "nobody")
    return Recipe("letters", 1, [download], write, options)


def test_what_was_written_is_there_with_its_hashes_sources_and_licence(tmp_path: Path) -> None:
    folder = Cache(tmp_path / "c").prepared(recipe(tmp_path / "log"), download=True)
    assert MappedArray(folder / "x.npy")[:].tolist() == [0, 1, 2, 3, 4]
    assert json.loads((folder / "words.json").read_text()) == ["abc"]
    manifest = json.loads((folder / MANIFEST).read_text())
    assert manifest["files"]["x.npy"]["sha256"] == hashlib.sha256((folder / "x.npy").read_bytes()).hexdigest()
    assert (manifest["sources"][0]["licence"], manifest["sources"][0]["sha256"]) == ("CC0", ABC)
    assert fingerprint(folder) == fingerprint(Cache(tmp_path / "d").prepared(recipe(tmp_path / "log"), download=True))


def test_it_is_fetched_and_written_once_by_however_many_processes(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    log, cache = tmp_path / "log", Cache(tmp_path / "c")
    asking = [context.Process(target=cache.prepared, args=(recipe(log),), kwargs={"download": True}) for _ in range(6)]
    for process in asking:
        process.start()
    for process in asking:
        process.join()
    assert ([process.exitcode for process in asking], log.read_text()) == ([0] * 6, "x")
    assert sorted(path.name for path in (tmp_path / "c").iterdir() if not path.name.endswith(".lock")) == [
        "downloads",
        recipe(log).folder_name,
    ]


def test_a_file_that_is_not_the_one_asked_for_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="it is another file"):
        Cache(tmp_path / "c").prepared(recipe(tmp_path / "log", b"abd"), download=True)
    assert not [path for path in (tmp_path / "c").rglob("*") if path.is_file() and not path.name.endswith(".lock")]


def test_nothing_is_fetched_unless_it_may_be(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="phalanx prepare"):
        Cache(tmp_path / "c").prepared(recipe(tmp_path / "log"), download=False)
    assert not (tmp_path / "c").exists()
    made = Cache(tmp_path / "c", fetches=True).prepared(recipe(tmp_path / "log"), download=False)
    assert Cache(tmp_path / "c").prepared(recipe(tmp_path / "log"), download=False) == made


def test_options_and_versions_have_folders_of_their_own(tmp_path: Path) -> None:
    log, cache = tmp_path / "log", Cache(tmp_path / "c")
    folders = {cache.prepared(recipe(log, options=size), download=True) for size in (None, {"size": 8}, {"size": 9})}
    assert (len(folders), log.read_text()) == (3, "x")


def test_after_a_kill_it_goes_on_with_the_files_that_were_complete(tmp_path: Path) -> None:
    cache, made = Cache(tmp_path / "c"), tmp_path / "made"

    def slow(files: Sequence[Path], output: Output) -> None:
        for i in range(4):
            if output.has(f"{i}.npy"):
                continue
            with made.open("a") as file:
                file.write(str(i))
            if i == 2 and made.read_text() == "012":
                with output.file("2.npy") as half:
                    half.write_bytes(b"half")
                    os.kill(os.getpid(), signal.SIGKILL)
            output.array(str(i), np.full(3, i))

    slow_recipe = recipe(tmp_path / "log", write=slow)
    killed = multiprocessing.get_context("fork").Process(target=cache.prepared, args=(slow_recipe, True))
    killed.start()
    killed.join()
    assert (killed.exitcode, cache._is_whole(cache.folder / slow_recipe.folder_name)) == (-signal.SIGKILL, False)
    folder = cache.prepared(slow_recipe, download=True)
    assert (made.read_text(), (tmp_path / "log").read_text()) == ("01223", "x")
    assert [int(MappedArray(folder / f"{i}.npy")[0]) for i in range(4)] == [0, 1, 2, 3]
    assert sorted(path.name for path in folder.iterdir()) == ["0.npy", "1.npy", "2.npy", "3.npy", MANIFEST]


def test_a_prepared_set_that_lost_a_file_is_made_anew_and_a_changed_byte_is_named(tmp_path: Path) -> None:
    cache, given = Cache(tmp_path / "c"), recipe(tmp_path / "log")
    folder = cache.prepared(given, download=True)
    (folder / "words.json").unlink()
    assert cache.prepared(given, download=True) == folder
    assert (folder / "words.json").exists()
    content = bytearray((folder / "x.npy").read_bytes())
    content[-1] ^= 1
    (folder / "x.npy").write_bytes(content)
    assert damaged(folder) == ["x.npy"]


def test_a_cache_that_cannot_be_written_is_a_message(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"data\.cache="):
        Cache(tmp_path / "file" / "c").prepared(recipe(tmp_path / "log"), download=True)


def test_a_mapped_array_is_sent_as_its_path_and_no_objects_are_read(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros(1_000_000))
    mapped = MappedArray(tmp_path / "x.npy")
    kind, arguments = mapped.__reduce__()
    assert np.array_equal(kind(*arguments)[[3, 4]], np.zeros(2))
    assert len(ForkingPickler.dumps(mapped)) < 1000
    np.save(tmp_path / "objects.npy", np.array([{}]))
    with pytest.raises(ConfigError, match="cannot be read as an array"):
        MappedArray(tmp_path / "objects.npy")


OWN = """
import numpy as np
from torch.utils.data import Dataset
from phalanx.data import Cache, MappedArray, Recipe

class Squares(Dataset):
    def __init__(self, count: int, cache: Cache, download: bool = False):
        self.x = MappedArray(cache.prepared(Recipe("squares", 1, [], self.write, count), download) / "x.npy")
        self.count = count
    def write(self, files, output):
        output.array("x", np.arange(10, dtype=np.float32))
    def __len__(self):
        return self.count
    def __getitem__(self, index):
        return self.x[index]
"""


EXPERIMENT = """
# @package _global_
defaults: [override /data: null]
data:
  cache: c
  train: {_target_: torch.utils.data.Subset, dataset: {_target_: mine.Squares, count: 7}, indices: [1, 2]}
  eval: {_target_: mine.Squares, count: 9}
"""


def test_phalanx_prepare_makes_a_data_set_of_the_users_own_in_data_cache(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(OWN)
    (tmp_path / "conf" / "experiment").mkdir(parents=True)
    (tmp_path / "conf" / "experiment" / "squares.yaml").write_text(EXPERIMENT)
    done = subprocess.run(
        [sys.executable, str(ROOT / "phalanx"), "prepare", "-cd", "conf", "experiment=squares"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert lines[:2] == [{"data": "train", "samples": 2}, {"data": "eval", "samples": 9}]
    assert [line["prepared"] for line in lines[2:]] == ["squares", "squares"]
    assert Path(lines[2]["folder"]).parent == tmp_path / "c"

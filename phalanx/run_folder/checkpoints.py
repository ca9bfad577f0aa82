"""Checkpoints on disk: layout, atomic commit, verification by hashes, retention.

    checkpoints/step_00000090/
        model.safetensors  frozen.safetensors?  ema.safetensors?  state.pt  rank_00000.pt?  progress.json  manifest.json

A checkpoint is written to a staging folder, its manifest last, and committed by one rename. So a folder with a manifest
under its final name is complete, unless the disk damaged it later, which the hashes detect.
"""

import errno
import hashlib
import json
import os
import re
import shutil
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..common.files import default_mode, read_text, sha256, sync_file, sync_folder, write_json
from ..exit.codes import ConfigError
from ..exit.disk_errors import writing
from . import lease, lease_holders, names

FORMAT, WITH_FROZEN = 1, 2  # 2 where there is frozen.safetensors: who knows 1 alone would take the rest for the whole
_READ = (FORMAT, WITH_FROZEN)


@dataclass(frozen=True)
class Checkpoint:
    folder: Path
    manifest: Mapping[str, Any]

    @property
    def step(self) -> int:
        return int(self.manifest["step"])

    def file(self, name: str) -> Path:
        return self.folder / name

    def has(self, name: str) -> bool:
        return name in self.manifest["files"]

    def progress(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(read_text(self.file(names.PROGRESS)))
        return found


_NOTHING_THERE = (FileNotFoundError, IsADirectoryError, NotADirectoryError)
_UNREADABLE = (errno.EACCES, errno.EPERM, errno.ESTALE, errno.ETIMEDOUT, errno.ENOTCONN)
_MOST_BYTES = 2**26  # of a manifest
_OWN_HASH = "manifest_sha256"  # over all other fields of the manifest
_LEFT = (names.STAGING, names.DELETING)  # suffixes of folders that interrupted saves and deletions leave


class DamagedError(Exception):
    """A checkpoint does not match its manifest."""


class Checkpoints:
    """The checkpoints of one run. Only rank 0 commits, deletes and sets aside.

    All methods that change them raise ConfigError once another start has taken the run over; see lease.py.
    """

    def __init__(self, run: Path, incarnation: int = 0) -> None:
        """`incarnation` is this start's number; 0 for readers."""
        self.folder = run / names.CHECKPOINTS
        self._run = run
        self._incarnation = incarnation

    def staging(self, step: int) -> Path:
        """The staging folder of the checkpoint at `step`."""
        return self.folder / f".{names.step_folder(step)}.{self._incarnation}{names.STAGING}"

    def commit(self, step: int, facts: Mapping[str, Any]) -> None:
        """Commit the staging folder as the checkpoint of `step`. `facts` go into the manifest."""
        staging, final = self.staging(step), self.folder / names.step_folder(step)
        files = {path.name: {"size": path.stat().st_size, "sha256": sha256(path)} for path in sorted(staging.iterdir())}
        for name in files:
            (staging / name).chmod(default_mode())
            sync_file(staging / name)
        own = {
            "format": WITH_FROZEN if names.FROZEN in files else FORMAT,
            "step": step,
            "incarnation": self._incarnation,
        }
        manifest = {**own, **facts, "time": time.time(), "files": files}
        write_json(staging / names.MANIFEST, {**manifest, _OWN_HASH: _hash(manifest)})
        lease.check(self._run, self._incarnation)
        if final.exists():
            if _incarnation(final) > self._incarnation:
                raise ConfigError(f"{final} was saved by a newer start, so this process leaves and saves nothing more")
            final.rename(_free_name(final, names.FENCED))
        staging.rename(final)
        sync_folder(self.folder)

    def steps(self) -> list[int]:
        """Steps of all checkpoints, ascending."""
        folders = [
            folder for folder in self._folders() if (folder / names.MANIFEST).exists() and not self._fenced(folder)
        ]
        return sorted(_step(folder) for folder in folders)

    def saving(self, write: Callable[[], None]) -> Callable[[], None]:
        """Wrap `write`: write errors become NoRoom, or ConfigError once another start has taken the run over, which deletes
        staging folders."""

        def act() -> None:
            try:
                with writing(self.folder):
                    write()
            except Exception:
                lease.check(self._run, self._incarnation)
                raise

        return act

    def drop(self, step: int) -> None:
        """Delete the staging folder."""
        shutil.rmtree(self.staging(step), ignore_errors=True)

    def clean(self, bad: Mapping[Path, str]) -> list[str]:
        """Delete what interrupted saves and deletions left; set aside checkpoints that are `bad`, lack their manifest, or
        were saved by a start that had been replaced. Returns a message for each damaged one."""
        lease.check(self._run, self._incarnation)
        self.folder.mkdir(exist_ok=True)
        for path in self.folder.glob(f".{names.STEP}*"):
            if path.suffix in _LEFT:
                shutil.rmtree(path)
        lost = {
            folder: f"{names.MANIFEST} is missing"
            for folder in self._folders()
            if not (folder / names.MANIFEST).exists()
        }
        for folder in self._folders():
            if folder not in bad and folder not in lost and self._fenced(folder):
                folder.rename(_free_name(folder, names.FENCED))
        told = []
        for folder, why in {**bad, **lost}.items():
            told.append(f"checkpoint {folder.name} is damaged ({why}) and set aside")
            with suppress(OSError):  # the next start skips it, too
                folder.rename(_free_name(folder, names.DAMAGED))
        return told

    def retain(self, keep: int, best: int | None, also: Collection[int] = (), every: int | None = None) -> None:
        """Delete all but the newest `keep` checkpoints, those of step `best` and of the steps `also`, those of multiples of
        `every`, and the newest that a replaced start saved. The file `best` is updated before checkpoints are deleted."""
        lease.check(self._run, self._incarnation)
        steps = self.steps()
        self._write_best(best if best in steps else None)
        for step in steps[:-keep]:
            if step != best and step not in also and not (every is not None and step % every == 0):
                _remove(self.folder / names.step_folder(step))
        for folder in sorted(
            self.folder.glob(f"{names.STEP}*{names.FENCED}"), key=lambda folder: folder.stat().st_mtime
        )[:-1]:
            _remove(folder)

    def _write_best(self, step: int | None) -> None:
        """Written at each save and each start, so that a missing or stale file, which a kill can leave, is repaired. Write
        errors are ignored: the next save reports a full disk."""
        file, staging = self.folder / names.BEST, self.folder / f".{names.BEST}{names.STAGING}"
        with suppress(OSError):
            staging.unlink(missing_ok=True)
            if step is None:
                file.unlink(missing_ok=True)
            elif not _holds(file, f"{names.step_folder(step)}\n"):
                staging.write_text(f"{names.step_folder(step)}\n", encoding="utf-8")
                staging.chmod(default_mode())
                sync_file(staging)
                staging.rename(file)

    def newest_good(self) -> tuple[Checkpoint | None, dict[Path, str]]:
        """The newest checkpoint that matches its manifest, and what is wrong with newer ones.

        Changes nothing. Raises ConfigError if the folder, or a checkpoint, cannot be read for other reasons than damage,
        or if it has another format: it may be undamaged.
        """
        bad: dict[Path, str] = {}
        for step in reversed(self.steps()):
            folder = self.folder / names.step_folder(step)
            try:
                return verify(folder), bad
            except DamagedError as error:
                bad[folder] = str(error)
        return None, bad

    def _fenced(self, folder: Path) -> bool:
        return lease_holders.fenced(self._run, _incarnation(folder), _step(folder))

    def _folders(self) -> list[Path]:
        """Raises ConfigError if the folder cannot be listed; Path.glob would return nothing."""
        try:
            with os.scandir(self.folder) as found:
                return [Path(entry.path) for entry in found if re.fullmatch(rf"{names.STEP}\d{{8,}}", entry.name)]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise ConfigError(
                f"{self.folder} cannot be read: {error.strerror}. Mount it, or mend that, and type the same command "
                "again; or run.fresh=true to begin anew"
            ) from None


def verify(folder: Path) -> Checkpoint:
    """The checkpoint in `folder`, every file compared with its size and hash in the manifest.

    Raises DamagedError, or ConfigError if it cannot be read or has another format.
    """
    with _classify_read_errors(folder):
        manifest, files, step = _manifest(folder)
        if folder.name.startswith(names.STEP) and folder.name != names.step_folder(step):
            raise DamagedError(f"{names.MANIFEST} speaks of step {step}")
        for name, (size, digest) in files.items():
            path = folder / name
            if Path(name).name != name or not path.is_file():
                raise DamagedError(f"{name} is missing")
            if path.stat().st_size != size or sha256(path) != digest:
                raise DamagedError(f"{name} is not what was written")
    return Checkpoint(folder, manifest)


def _manifest(folder: Path) -> tuple[Mapping[str, Any], dict[str, tuple[int, str]], int]:
    """The manifest, size and hash of each file, and the step. Raises DamagedError or ConfigError."""
    try:
        if (folder / names.MANIFEST).stat().st_size > _MOST_BYTES:
            raise ValueError(f"it has more than {_MOST_BYTES} bytes")
        manifest = json.loads((folder / names.MANIFEST).read_text(encoding="utf-8"))
        written = manifest["format"]
    except (*_NOTHING_THERE, ValueError, KeyError, TypeError) as error:
        raise DamagedError(f"{names.MANIFEST} cannot be read: {type(error).__name__}: {error}") from None
    if type(written) is int and written not in _READ:
        raise ConfigError(
            f"{folder} is of format {written}, and this version of Phalanx reads {FORMAT} and {WITH_FROZEN}. Train on with "
            "the version that saved it, or type run.fresh=true to set the run aside and begin anew"
        )
    try:
        files = {str(name): (int(file["size"]), str(file["sha256"])) for name, file in manifest["files"].items()}
        step = int(manifest["step"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedError(f"{names.MANIFEST} cannot be read: {type(error).__name__}: {error}") from None
    if _OWN_HASH in manifest and manifest[_OWN_HASH] != _hash(manifest):
        raise DamagedError(f"{names.MANIFEST} is not what was written")
    if type(written) is not int:
        raise DamagedError(f"{names.MANIFEST} is of format {written!r}, which is no number")
    return manifest, files, step


@contextmanager
def _classify_read_errors(folder: Path) -> Iterator[None]:
    """Turn OSErrors into ConfigError if the system refuses access, which is no damage, and into DamagedError for EIO."""
    try:
        yield
    except OSError as error:
        if error.errno == errno.EIO:
            name = Path(error.filename or folder).name
            raise DamagedError(f"{name} cannot be read: {error.strerror}") from None
        if error.errno not in _UNREADABLE:
            raise
        raise ConfigError(
            f"{error.filename or folder} cannot be read: {error.strerror}. The checkpoint may be as good as ever, so "
            "nothing was set aside. Mend that and type the same command again, or run.fresh=true to begin anew"
        ) from None


def source(path: Path, *, want_best: bool) -> Checkpoint:
    """The checkpoint that a user named: a run's folder (its best, or newest) or a checkpoint's. Raises ConfigError."""
    if (path / names.MANIFEST).is_file():
        return _verified_or_explain(path)
    checkpoints = Checkpoints(path)
    steps = checkpoints.steps()
    if not steps:
        found = "holds no checkpoint" if path.exists() else "is not there"
        raise ConfigError(f"{path} {found}. Type a run's folder, a checkpoint's, or a file of weights")
    newest = _verified_or_explain(checkpoints.folder / names.step_folder(steps[-1]))
    best = newest.manifest.get("best_step")
    if want_best and best in steps:
        return _verified_or_explain(checkpoints.folder / names.step_folder(best))
    return newest


def verified_step(run: Path, step: int) -> Checkpoint:
    """The checkpoint of `step` in the run's folder. Raises ConfigError."""
    return _verified_or_explain(Checkpoints(run).folder / names.step_folder(step))


def _verified_or_explain(folder: Path) -> Checkpoint:
    try:
        return verify(folder)
    except DamagedError as error:
        raise ConfigError(f"The checkpoint {folder} is damaged: {error}. Name another one") from None


def _remove(folder: Path) -> None:
    """Rename a checkpoint, then delete it, so that an interrupted deletion does not look like damage."""
    doomed = folder.with_name(f".{folder.name}{names.DELETING}")
    folder.rename(doomed)
    shutil.rmtree(doomed)


def _hash(manifest: Mapping[str, Any]) -> str:
    said = {key: value for key, value in manifest.items() if key != _OWN_HASH}
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def _step(folder: Path) -> int:
    return int(folder.name.removeprefix(names.STEP))


def _incarnation(folder: Path) -> int:
    """The incarnation that saved it; the largest if the manifest cannot be read, so that it is not discarded."""
    try:
        return int(json.loads(read_text(folder / names.MANIFEST))["incarnation"])
    except (OSError, ValueError, KeyError, TypeError):
        return sys.maxsize


def _holds(file: Path, text: str) -> bool:
    try:
        return read_text(file, len(text)) == text
    except (OSError, ValueError):  # none there, or another's, of any size
        return False


def _free_name(folder: Path, suffix: str) -> Path:
    names = (folder.with_name(f"{folder.name}{f'.{i}' if i else ''}{suffix}") for i in range(1_000_000))
    return next(name for name in names if not name.exists())

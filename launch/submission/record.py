"""The submission folder of a job and its requeues: copy of the code, arguments, run folders; written, listed, removed."""

import fcntl
import hashlib
import os
import re
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from phalanx.common.files import read_json, write_json
from phalanx.config.run_root import folder_of_runs
from phalanx.config.schema import RunConfig
from phalanx.exit.codes import ConfigError
from phalanx.run_folder import names
from phalanx.system.module_path import ROOT

from ..common.sweep_folder import SWEEP
from . import snapshot
from .snapshot import SUBMITTED

_RECORD = "submission.json"
_BEFORE = "Slurm"  # the only cluster of older versions, whose records name none
_KEPT = 5  # folders of submissions that are over


@dataclass(frozen=True)
class Submission:
    """`code` in `folder` is Phalanx as it was. `copies` are checkouts and where in `folder` they are copied to.

    `directory` is where the command was typed, `root` holds the run folders, `path` the user's own packages. `runs` are
    the run folders by the index in the array, "" for the only one. `backend` is the name of the cluster.
    """

    backend: str
    folder: Path
    code: Path
    copies: Mapping[Path, Path]
    directory: Path
    root: Path
    path: Sequence[str]
    words: Sequence[str]
    runs: Mapping[str, str]

    @property
    def token(self) -> str:
        return _token(self.folder)


def run_root(run: RunConfig) -> Path:
    return folder_of_runs(run.root).absolute()


def plan_submission(
    backend: str,
    run: RunConfig,
    words: Sequence[str],
    runs: Mapping[str, str],
    directory: Path,
    environ: Mapping[str, str],
) -> Submission:
    """Plan the next submission to `backend`: its folder, what is copied there. Writes nothing."""
    root = run_root(run)
    folder = _next(root / SUBMITTED, str(run.name))
    copies: dict[Path, Path] = {}

    def copied(path: Path) -> Path:
        """Where the job finds `path`: in a copy if it lies in a checkout, else where it is now."""
        top = snapshot.checkout_of(path, environ)
        if top is None:
            return path
        target = copies.setdefault(top, folder / ("code" if not copies else f"code-{len(copies)}"))
        return target / path.resolve().relative_to(top.resolve())

    code = copied(ROOT)
    if code == ROOT:  # installed, so there is no checkout
        code = copies.setdefault(ROOT, folder / "code")
    places = _places(directory, environ)
    config_dir = _config_dir(words)
    if config_dir is not None:
        words = [*words, f"--config-dir={copied(directory / config_dir)}"]  # the last one counts
    path = [str(copied(place)) for place in places]
    return Submission(backend, folder, code, copies, directory, root, path, words, runs)


def _config_dir(words: Sequence[str]) -> str | None:
    from hydra._internal.utils import get_args_parser  # here, for it takes longer to import than all the rest

    folder: str | None = get_args_parser().parse_intermixed_args(list(words)).config_dir
    return folder


def write_submission(submission: Submission, environ: Mapping[str, str]) -> None:
    """Write the folder: code, arguments, record. Raises ConfigError where that fails."""
    try:
        submission.folder.mkdir(mode=0o700, parents=True)  # what was typed may hold a secret
        for top, target in submission.copies.items():
            if snapshot.checkout_of(top, environ) is None:
                snapshot.copy_installed(top, target)
            else:
                snapshot.copy_checkout(top, target, _results(submission, environ), environ)
        words = b"".join(os.fsencode(word) + b"\0" for word in submission.words)
        (submission.folder / "words").write_bytes(words)
    except OSError as error:
        raise ConfigError(f"{submission.folder} cannot be written: {error.strerror}. Type run.root=…") from None
    write_record(submission, None)


def _places(directory: Path, environ: Mapping[str, str]) -> list[Path]:
    """The folders on PYTHONPATH, which hold the user's own packages."""
    return [directory / entry for entry in environ.get("PYTHONPATH", "").split(os.pathsep) if entry]


def _results(submission: Submission, environ: Mapping[str, str]) -> Path | None:
    """The folder in which no code is looked for; None where code lies there, too, as with run.root=. in a checkout."""
    root = submission.root.resolve()
    sources = [*_places(submission.directory, environ), submission.directory, ROOT]
    return None if any(source.resolve().is_relative_to(root) for source in sources) else root


def write_record(submission: Submission, job: str | None) -> None:
    """Write the record that status and cancel read: cluster, the job's id once there is one, and the run folders."""
    told = {"backend": submission.backend, "job": job, "runs": dict(submission.runs)}
    write_json(submission.folder / _RECORD, told)


@dataclass(frozen=True)
class SubmissionEntry:
    """A run that was submitted: `element` is its index in the job's array, "" for the only one.

    `backend` is the name of the cluster that has the job. `job` is None where the submission was not told of its id.
    """

    backend: str
    run: Path
    folder: Path
    job: str | None
    element: str

    @property
    def token(self) -> str:
        return _token(self.folder)


def entries(root: Path) -> list[SubmissionEntry]:
    """What was submitted from this root, the oldest first; a run is there once for each submission."""
    return [
        SubmissionEntry(told.get("backend", _BEFORE), Path(run), path.parent, told.get("job"), element)
        for path, told in _records(root)
        for element, run in told["runs"].items()
    ]


def remove_old(root: Path, live: Collection[str]) -> None:
    """Remove the folders of submissions that nobody needs any more, but for the newest few, whose logs may be wanted.

    Those are needed whose token is one of `live`, and those that hold a run that has not finished.
    """
    records = _records(root)
    over = [path.parent for path, told in records if _token(path.parent) not in live and _has_finished(told)]
    for folder in over[:-_KEPT]:
        shutil.rmtree(folder, ignore_errors=True)


def _records(root: Path) -> list[tuple[Path, dict[str, Any]]]:
    """The files of the submissions from this root and what they hold, the oldest first, less those just removed."""
    found = []
    for path in (root.absolute() / SUBMITTED).glob(f"*/{_RECORD}"):
        with suppress(OSError):
            told = read_json(path)
            if isinstance(told, dict) and isinstance(told.get("runs"), dict):
                found.append((path.stat().st_ctime, path, told))
    return [(path, told) for _, path, told in sorted(found, key=lambda each: each[:2])]


def _has_finished(told: Mapping[str, Any]) -> bool:
    runs = told["runs"].values()
    return all((Path(run) / names.SUMMARY).exists() or _is_finished_sweep(Path(run)) for run in runs)


def _is_finished_sweep(folder: Path) -> bool:
    found = read_json(folder / SWEEP)
    return isinstance(found, dict) and found.get("state") == "finished"


@contextmanager
def submission_lock(run: RunConfig) -> Iterator[None]:
    """Lock the submissions of a root: one command at a time queries the queue and submits. Raises ConfigError."""
    folder = run_root(run) / SUBMITTED
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / ".lock").open("w")
    except OSError as error:
        raise ConfigError(f"{folder} cannot be written: {error.strerror}. Type run.root=…") from None
    with file:
        fcntl.lockf(file, fcntl.LOCK_EX)
        yield


def _token(folder: Path) -> str:
    """What the cluster knows a job by, whatever characters the folder's name has."""
    return f"phalanx:{hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]}"


def _next(submitted: Path, name: str) -> Path:
    stem = re.sub(r"[^A-Za-z0-9._-]", "_", name)
    taken = [path.name.removeprefix(f"{stem}-") for path in submitted.glob(f"{stem}-*")]
    return submitted / f"{stem}-{max((int(number) for number in taken if number.isdecimal()), default=0) + 1}"

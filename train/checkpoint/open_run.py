"""Open the run folder: create it or continue it, acquire its lease, compare config, code and data with what it holds."""

import errno
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from phalanx.common.files import as_json, open_regular, read_text, sync_folder, write_atomic, write_json
from phalanx.compose import resolved
from phalanx.compose.digest import differences
from phalanx.config.run_root import folder_of_run
from phalanx.config.schema import Accept, Config, RunConfig
from phalanx.exit.codes import ConfigError, NoRoom
from phalanx.exit.disk_errors import writing
from phalanx.run_folder import environment, names
from phalanx.run_folder.checkpoints import Checkpoints
from phalanx.run_folder.lease import Lease, acquire
from phalanx.run_folder.lease_holders import held_by_this_launch
from phalanx.run_folder.leftovers import sweep_run
from phalanx.run_folder.links import check_links

from .run_differences import RunDifferences, compare, compare_code_and_data, saved

_ELSEWHERE = "Type run.root=… with a folder to write to"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunRecord:
    """The config's digest and what it does not cover: environment, hashes of code and data, what `auto` resolved to."""

    digest: str
    environment: Mapping[str, Any]
    code: Mapping[str, str]
    data: Mapping[str, str]
    auto: Mapping[str, str]

    def as_json(self) -> dict[str, Any]:
        known = {"config_digest": self.digest, "code": self.code, "data": self.data, "auto": self.auto}
        return {**self.environment, **known}


@dataclass(frozen=True)
class OpenRun:
    """An open run folder. `notes` are differences that do not stop the run.

    `incarnation` is the number of this start; `began` is when the first start began (seconds since 1970), if known;
    `summary` is that of a finished run.
    """

    path: Path
    incarnation: int
    new: bool
    began: float | None
    notes: list[str]
    summary: dict[str, Any] | None


def open_run(config: Config, plain: Mapping[str, Any], record: RunRecord, *, attempt: int) -> tuple[OpenRun, Lease]:
    """Create the run folder, or open the one that the same command created. Only rank 0 calls it.

    `attempt` counts the launcher's restarts of this command. Returns the folder and its lease. Raises ConfigError, and
    changes nothing, if the folder is another run's, if a process trains it now, or if code or data changed since a step
    was saved.
    """
    path = _path(config.run)
    if config.run.fresh and path.exists() and not (attempt and held_by_this_launch(path, os.environ)):
        _set_aside(path)
    new = (not path.exists() or (path.is_dir() and not any(path.iterdir()))) and _create(path, plain, record)
    _check_is_a_run(path)
    check_links(path)
    held = acquire(path, attempt, os.environ)
    sweep_run(path)
    try:
        if new:
            return OpenRun(path, held.incarnation, True, None, _draw_warnings({}, record), None), held
        summary = _summary(path)
        found = compare(path, config)
        compare_code_and_data(found, record.code, record.data)
        if found.all and summary is None and not saved(path):
            _write(path, {names.RESOLVED: resolved.to_yaml(plain), names.ENVIRONMENT: as_json(record.as_json())})
            notes = [
                f"nothing was saved since {path} began, so it begins anew: {_listed(found.all)}",
                *_draw_warnings({}, record),
            ]
            return OpenRun(path, held.incarnation, True, None, notes, None), held
        _check_same(path, config, found, summary)
        if summary is None:
            _write(path, _repaired_files(found, plain, record))
        # Nobody has begun where the start that made the folder was slower to take it, or died before its first word.
        begins = summary is None and not saved(path) and not (path / names.EVENTS).exists()
        return OpenRun(path, held.incarnation, begins, _began(path), _notes(found, record), summary), held
    except BaseException:
        held.withdraw()
        raise


def finished(config: Config) -> tuple[Path, dict[str, Any]] | None:
    """Folder and summary of this run if it has finished, whether or not its code changed since.

    None also if it takes a hash to tell: data moved to another path, or the run was initialised from weights. Raises
    ConfigError if the folder is another run's.
    """
    path = _path(config.run)
    if config.run.fresh:
        return None
    try:
        summary = _finished_summary(path)
    except _DAMAGE:
        return None
    found = compare(path, config)
    if found.moved or config.train.init_from is not None:
        return None
    _check_same(path, config, found, summary)
    return path, summary


def _check_same(path: Path, config: Config, found: RunDifferences, summary: Mapping[str, Any] | None) -> None:
    """Raise ConfigError if the folder is another run's, or if a change was not accepted by run.accept=changed."""
    accepted = config.run.accept is Accept.changed
    if found.damage and (found.other or not accepted):
        way = "" if found.other else "Type run.accept=changed to write it anew and continue all the same. "
        raise ConfigError(f"{'; '.join(found.damage.values())}. {way}{_ANEW}")
    if found.other:
        longer = all(change.startswith(("train.steps:", "train.epochs:")) for change in found.other)
        hint = (
            f"To train it longer type run.name=… train.extend_from={path}. " if longer and summary is not None else ""
        )
        raise ConfigError(f"{path} is the run of another config: {_listed(found.other)}. {hint}{_ANEW}")
    if (found.data or (found.code and summary is None)) and not accepted:
        raise ConfigError(
            f"Since {path} began, its code or data changed: {_listed(found.changed)}. Continuing would mix two "
            "experiments. Type run.accept=changed to continue all the same, or run.fresh=true to set the folder "
            "aside and begin anew"
        )


def _notes(found: RunDifferences, record: RunRecord) -> list[str]:
    """The differences that do not stop the run, one line each."""
    since = environment.differences(found.before, record.environment)
    since += differences(found.before["auto"], record.auto) if found.before["auto"] else []
    notes = [f"since the run began: {line}" for line in since]
    accepted = [*found.damage.values(), *found.changed]
    notes += [f"accepted: {_listed(accepted)}"] if accepted else []
    notes += _draw_warnings(found.before["data"], record)
    return notes + [f"{name} are the same at another place: {line}" for name, line in found.moved.items()]


def stored_config(run: Path) -> Config:
    """The config that the run in the folder `run` began with. Raises ConfigError when there is none to be read."""
    try:
        return resolved.read(run / names.RESOLVED)
    except ConfigError as error:
        raise ConfigError(f"{run / names.RESOLVED} is damaged ({error}). {_ANEW}") from None


def _summary(run: Path) -> dict[str, Any] | None:
    """The summary; None if the run has not finished or its summary is damaged."""
    try:
        return _finished_summary(run)
    except FileNotFoundError:
        return None
    except _DAMAGE as error:
        logger.warning("%s is damaged (%s) and is written anew from the last checkpoint", run / names.SUMMARY, error)
        return None


_DAMAGE = (OSError, LookupError, TypeError, RecursionError, ValueError)


def _finished_summary(run: Path) -> dict[str, Any]:
    """The summary. Raises one of _DAMAGE."""
    found: dict[str, Any] = json.loads(read_text(run / names.SUMMARY))
    if not (found["weights_sha256"] and found["steps"]):
        raise LookupError("it has no weights_sha256 or no steps")
    return found


def _began(run: Path) -> float | None:
    """When the process of the first start began; None where it died before it said so."""
    with (
        suppress(OSError, ValueError, KeyError, TypeError),
        os.fdopen(open_regular(run / names.EVENTS), encoding="utf-8") as events,
    ):
        first = json.loads(events.readline())
        return float(first["time"] - first["took_s"])
    return None


def _path(run: RunConfig) -> Path:
    assert run.name is not None
    try:
        path = folder_of_run(run.root, run.name)
        path.exists()
    except OSError as error:
        raise ConfigError(
            f"The run folder {run.root}/{run.name} cannot be made: {error.strerror}. {_ELSEWHERE}"
        ) from None
    return path


def _listed(changes: list[str]) -> str:
    more = f" and {len(changes) - 8} more" if len(changes) > 8 else ""
    return "; ".join(changes[:8]) + more


def _create(path: Path, plain: Mapping[str, Any], record: RunRecord) -> bool:
    """Create the folder under a temporary name and rename it, so that it is never half created.

    Returns False if another start was faster.
    """
    made = None
    try:
        with writing(path.parent, ours=False):
            path.parent.mkdir(parents=True, exist_ok=True)
            made = Path(tempfile.mkdtemp(dir=path.parent, prefix=names.BEGINNING))
            made.chmod(0o755)
            (made / names.LOGS).mkdir()
            Checkpoints(made).folder.mkdir()
            write_atomic(made / names.RESOLVED, resolved.to_yaml(plain))
            write_json(made / names.ENVIRONMENT, record.as_json())
            made.rename(path)
            sync_folder(path.parent)
            return True
    except (OSError, NoRoom) as error:
        if made is not None:
            shutil.rmtree(made, ignore_errors=True)
        if isinstance(error, NoRoom):
            raise
        if made is not None and error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            return False
        raise ConfigError(f"The run folder {path} cannot be made: {error.strerror}. {_ELSEWHERE}") from None


def _repaired_files(found: RunDifferences, plain: Mapping[str, Any], record: RunRecord) -> dict[str, str]:
    """The files to rewrite after run.accept=changed: damaged ones, and environment.json with the new hashes."""
    files = {names.RESOLVED: resolved.to_yaml(plain)} if names.RESOLVED in found.damage else {}
    if names.ENVIRONMENT in found.damage:
        return {**files, names.ENVIRONMENT: as_json(record.as_json())}
    if not found.changed and not _draw_warnings(found.before["data"], record):
        return files
    now = {**found.before, "code": record.code, "data": record.data}
    return {**files, names.ENVIRONMENT: as_json(now)}


def _draw_warnings(recorded: Mapping[str, str], record: RunRecord) -> list[str]:
    """A warning for each data set found to draw from its own generator, once a run."""
    drawing = [name for name, known in record.data.items() if known == names.DRAWS != recorded.get(name)]
    return [
        f"{name} draws from a generator of its own: a sample came out different the second time. The run goes on after a "
        "restart, but not with the same bits. Draw from random, numpy.random or torch, which are seeded for each sample"
        for name in drawing
    ]


def _write(path: Path, files: Mapping[str, str]) -> None:
    try:
        with writing(path):
            for name, text in files.items():
                write_atomic(path / name, text)
    except OSError as error:
        raise ConfigError(f"{path} cannot be written to: {error.strerror}") from None


def _check_is_a_run(path: Path) -> None:
    """Raise ConfigError when the folder is no run's, or cannot be written to."""
    if not _is_a_run(path):
        raise _no_run(path)
    if not os.access(path, os.W_OK):
        raise ConfigError(f"The run folder {path} cannot be written to. {_ELSEWHERE}")


def _is_a_run(path: Path) -> bool:
    return any((path / name).exists() for name in (names.RESOLVED, names.ENVIRONMENT, names.CHECKPOINTS))


def _no_run(path: Path) -> ConfigError:
    return ConfigError(f"{path} exists and is no run's folder. Type run.name=… with another name, or move it away")


_ANEW = "Type run.fresh=true to set the folder aside and begin anew, or run.name=… for another one"


def _set_aside(path: Path) -> None:
    if not _is_a_run(path):
        raise _no_run(path)
    free = (path.with_name(f"{path.name}{names.SET_ASIDE}{i}") for i in range(1, 1_000_000))
    aside = next(name for name in free if not name.exists())
    try:
        held = acquire(path, 0, os.environ)
        try:
            path.rename(aside)
            held.follow(aside)
        finally:
            held.close()
    except OSError as error:
        raise ConfigError(f"{path} cannot be set aside: {error.strerror}") from None

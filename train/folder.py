"""The run folder: whose it is, and whether what it was made with is still what is here."""

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

from train import environment, fingerprint, identity, resolved
from train.checkpoint import Checkpoints
from train.config import Accept, Config, RunConfig
from train.files import sync_folder, write_json, write_whole
from train.lease import Lease, claim, held_by_this_launch
from train.outcome import ConfigError
from train.resolved import RESOLVED
from train.root import folder_of_runs

ENVIRONMENT, SUMMARY, EVENTS = "environment.json", "summary.json", "events.jsonl"

_ELSEWHERE = "Type run.root=… with a folder to write to"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Facts:
    """What a digest of the config cannot see: what ran, the code and the data, and what `auto` resolved to."""

    environment: Mapping[str, Any]
    code: Mapping[str, str]
    data: Mapping[str, str]
    auto: Mapping[str, str]

    def as_json(self) -> dict[str, Any]:
        return {**self.environment, "code": self.code, "data": self.data, "auto": self.auto}


@dataclass(frozen=True)
class Opened:
    """A run folder that is this command's. `notes` are what differs without being in the way.

    `incarnation` is the number of this start; `began` is when the first one did, seconds since 1970, where that is known;
    `summary` is what the run came to, if it has finished.
    """

    path: Path
    incarnation: int
    new: bool
    began: float | None
    notes: list[str]
    summary: dict[str, Any] | None


def open_run(config: Config, plain: Mapping[str, Any], facts: Facts, *, attempt: int) -> tuple[Opened, Lease]:
    """Make the run folder, or find the one that the same command made before. Rank 0 alone calls it.

    `attempt` counts how often a launcher began this very command again. Returns what it found and the hold on the
    folder. Raises ConfigError when the folder is another run's, when a process trains it right now, or when code or
    data changed since it began; nothing is changed then.
    """
    path = _path(config.run)
    if config.run.fresh and path.exists() and not (attempt and held_by_this_launch(path, os.environ)):
        _set_aside(path)
    new = (not path.exists() or (path.is_dir() and not any(path.iterdir()))) and _create(path, plain, facts)
    before = _recorded(path)
    held = claim(path, attempt, os.environ)
    try:
        if new:
            return Opened(path, held.incarnation, True, None, [], None), held
        summary = _summary(path)
        _same_config(path, config, summary)
        changes = _changes(before, facts)
        if changes and config.run.accept is not Accept.changed:
            raise ConfigError(
                f"Since {path} began, its code or data changed: {_listed(changes)}. Continuing would mix two "
                "experiments. Type run.accept=changed to continue all the same, or run.fresh=true to set the folder "
                "aside and begin anew"
            )
        notes = environment.differences(before, facts.environment)
        notes += identity.differences(before["auto"], facts.auto)
        if changes and summary is None:
            _write_json(path / ENVIRONMENT, {**before, "code": facts.code, "data": facts.data})
            notes += [f"accepted: {change}" for change in changes]
        return Opened(path, held.incarnation, False, _began(path), notes, summary), held
    except BaseException:
        held.withdraw()
        raise


def stored_config(run: Path) -> Config:
    """The config that the run in the folder `run` began with. Raises ConfigError when there is none to be read."""
    try:
        return resolved.read(run / RESOLVED)
    except ConfigError as error:
        raise ConfigError(f"{run / RESOLVED} is damaged ({error}). {_ANEW}") from None


def _summary(run: Path) -> dict[str, Any] | None:
    """What the run came to; None when it has not finished, or finished without a readable word of it."""
    try:
        found: dict[str, Any] = json.loads((run / SUMMARY).read_text(encoding="utf-8"))
        return found if found["weights_sha256"] and found["steps"] else None
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        logger.warning("%s is damaged (%s) and is written anew from the last checkpoint", run / SUMMARY, error)
        return None


def _began(run: Path) -> float | None:
    """When the process of the first start began; None where it died before it said so."""
    with suppress(OSError, ValueError, KeyError, TypeError), (run / EVENTS).open(encoding="utf-8") as events:
        first = json.loads(events.readline())
        return float(first["time"] - first["took_s"])
    return None


def _path(run: RunConfig) -> Path:
    assert run.name is not None
    try:
        path = folder_of_runs(run.root).absolute() / run.name
        path.exists()
    except OSError as error:
        raise ConfigError(
            f"The run folder {run.root}/{run.name} cannot be made: {error.strerror}. {_ELSEWHERE}"
        ) from None
    return path


def _listed(changes: list[str]) -> str:
    more = f" and {len(changes) - 8} more" if len(changes) > 8 else ""
    return "; ".join(changes[:8]) + more


def _create(path: Path, plain: Mapping[str, Any], facts: Facts) -> bool:
    """Lay the folder out beside and bring it to its place by one rename, so that a run is never half begun.

    Returns whether this start did; False when another one was faster.
    """
    made = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(dir=path.parent, prefix=".beginning-"))
        made.chmod(0o755)
        (made / "logs").mkdir()
        Checkpoints(made).folder.mkdir()
        write_whole(made / RESOLVED, resolved.written(plain))
        write_json(made / ENVIRONMENT, facts.as_json())
        made.rename(path)
        sync_folder(path.parent)
        return True
    except OSError as error:
        if made is not None:
            shutil.rmtree(made, ignore_errors=True)
        if made is not None and error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            return False
        raise ConfigError(f"The run folder {path} cannot be made: {error.strerror}. {_ELSEWHERE}") from None


def _write_json(path: Path, value: Any) -> None:
    try:
        write_json(path, value)
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}") from None


def _recorded(path: Path) -> dict[str, Any]:
    """environment.json of an existing run. Raises ConfigError when it is no run's, damaged, or cannot be written to."""
    if not path.is_dir() or not (path / RESOLVED).is_file():
        raise _no_run(path)
    if not os.access(path, os.W_OK):
        raise ConfigError(f"The run folder {path} cannot be written to. {_ELSEWHERE}")
    try:
        found: dict[str, Any] = json.loads((path / ENVIRONMENT).read_text(encoding="utf-8"))
        if not all(isinstance(found[part], dict) for part in ("code", "data", "auto")):
            raise ValueError("parts are missing")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path / ENVIRONMENT} is damaged ({error}). {_ANEW}") from None
    return found


def _no_run(path: Path) -> ConfigError:
    return ConfigError(f"{path} exists and is no run's folder. Type run.name=… with another name, or move it away")


_ANEW = "Type run.fresh=true to set the folder aside and begin anew, or run.name=… for another one"


def _same_config(path: Path, config: Config, summary: Mapping[str, Any] | None) -> None:
    changed = identity.differences(identity.defining(stored_config(path)), identity.defining(config))
    if not changed:
        return
    longer = all(change.startswith(("train.steps:", "train.epochs:")) for change in changed)
    hint = f"To train it longer type run.name=… train.extend_from={path}. " if longer and summary is not None else ""
    raise ConfigError(f"{path} is the run of another config: {_listed(changed)}. {hint}{_ANEW}")


def _changes(before: Mapping[str, Any], facts: Facts) -> list[str]:
    changes = fingerprint.changed(before["code"], facts.code)
    data = before["data"]
    names = sorted(data.keys() | facts.data.keys())
    return changes + [f"what {name} holds" for name in names if data.get(name) != facts.data.get(name)]


def _set_aside(path: Path) -> None:
    if not any((path / name).exists() for name in (RESOLVED, ENVIRONMENT, "checkpoints")):
        raise _no_run(path)
    names = (path.with_name(f"{path.name}.set-aside-{i}") for i in range(1, 1_000_000))
    aside = next(name for name in names if not name.exists())
    try:
        held = claim(path, 0, os.environ)
        try:
            path.rename(aside)
            held.follow(aside)
        finally:
            held.close()
    except OSError as error:
        raise ConfigError(f"{path} cannot be set aside: {error.strerror}") from None

"""The run folder: whose it is, and whether what it was made with is still what is here."""

import logging
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from train import environment, fingerprint, identity, resolved
from train.checkpoint import Checkpoints
from train.config import Accept, Config
from train.files import write_json
from train.outcome import ConfigError

RESOLVED, ENVIRONMENT, SUMMARY = "resolved.yaml", "environment.json", "summary.json"

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
    """A run folder that is this command's. `notes` are what differs without being in the way."""

    path: Path
    new: bool
    notes: list[str]


def open_run(config: Config, plain: Mapping[str, Any], facts: Facts, *, first_attempt: bool) -> Opened:
    """Make the run folder, or find the one that the same command made before. Rank 0 alone calls it.

    Raises ConfigError when the folder is another run's, or code or data changed since it began; nothing is changed then.
    """
    assert config.run.name is not None
    path = Path(config.run.root).expanduser().absolute() / config.run.name
    if config.run.fresh and first_attempt and path.exists():
        _set_aside(path)
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        _create(path, plain, facts)
        return Opened(path, True, [])
    before = _recorded(path)
    _same_config(path, config)
    changes = _changes(before, facts)
    if changes and config.run.accept is not Accept.changed:
        raise ConfigError(
            f"Since {path} began, its code or data changed: {_listed(changes)}. Continuing would mix two experiments. "
            "Type run.accept=changed to continue all the same, or run.fresh=true to set the folder aside and begin anew"
        )
    notes = environment.differences(before, facts.environment)
    notes += [f"{key}: {before['auto'].get(key)} -> {now}" for key, now in facts.auto.items() if before["auto"].get(key) != now]
    if changes:
        _write_json(path / ENVIRONMENT, {**before, "code": facts.code, "data": facts.data})
        notes += [f"accepted: {change}" for change in changes]
    return Opened(path, False, notes)


def _listed(changes: list[str]) -> str:
    more = f" and {len(changes) - 8} more" if len(changes) > 8 else ""
    return "; ".join(changes[:8]) + more


def _create(path: Path, plain: Mapping[str, Any], facts: Facts) -> None:
    """Lay the folder out beside and bring it to its place by one rename, so that a run is never half begun."""
    made = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(dir=path.parent, prefix=".beginning-"))
        made.chmod(0o755)
        (made / "logs").mkdir()
        Checkpoints(made).folder.mkdir()
        (made / RESOLVED).write_text(resolved.written(plain), encoding="utf-8")
        write_json(made / ENVIRONMENT, facts.as_json())
        os.rename(made, path)
    except OSError as error:
        if made is not None:
            for file in (made / RESOLVED, made / ENVIRONMENT):
                file.unlink(missing_ok=True)
            for folder in (made / "logs", made / "checkpoints", made):
                if folder.exists():
                    folder.rmdir()
        raise ConfigError(f"The run folder {path} cannot be made: {error.strerror}. Type run.root=… with a folder to write to") from None


def _write_json(path: Path, value: Any) -> None:
    try:
        write_json(path, value)
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}") from None


def _recorded(path: Path) -> dict[str, Any]:
    """environment.json of an existing run. Raises ConfigError when it is no run's, or damaged, or cannot be written to."""
    import json

    if not path.is_dir() or not (path / RESOLVED).is_file():
        raise ConfigError(f"{path} exists and is no run's folder. Type run.name=… with another name, or move it away")
    if not os.access(path, os.W_OK):
        raise ConfigError(f"The run folder {path} cannot be written to. Type run.root=… with a folder to write to")
    try:
        found: dict[str, Any] = json.loads((path / ENVIRONMENT).read_text(encoding="utf-8"))
        if not all(isinstance(found[part], dict) for part in ("code", "data", "auto")):
            raise ValueError("parts are missing")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path / ENVIRONMENT} is damaged ({error}). {_ANEW}") from None
    return found


_ANEW = "Type run.fresh=true to set the folder aside and begin anew, or run.name=… for another one"


def _same_config(path: Path, config: Config) -> None:
    try:
        before = resolved.read(path / RESOLVED)
    except ConfigError as error:
        raise ConfigError(f"{path / RESOLVED} is damaged ({error}). {_ANEW}") from None
    changed = identity.differences(identity.defining(before), identity.defining(config))
    if changed:
        raise ConfigError(f"{path} is the run of another config: {_listed(changed)}. {_ANEW}")


def _changes(before: Mapping[str, Any], facts: Facts) -> list[str]:
    changes = fingerprint.changed(before["code"], facts.code)
    return changes + [
        f"the {name} data" for name in sorted(before["data"] | facts.data) if before["data"].get(name) != facts.data.get(name)
    ]


def _set_aside(path: Path) -> None:
    names = (path.with_name(f"{path.name}.set-aside-{i}") for i in range(1, 1_000_000))
    aside = next(name for name in names if not name.exists())
    try:
        path.rename(aside)
    except OSError as error:
        raise ConfigError(f"{path} cannot be set aside: {error.strerror}") from None

"""Compare a run folder with this command: config, code and data."""

import errno
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from phalanx.common.files import open_regular, read_json, read_text
from phalanx.compose import digest, resolved
from phalanx.compose.former_digests import former_digests
from phalanx.config.metric_direction import data_sets
from phalanx.config.schema import Config
from phalanx.exit.codes import ConfigError
from phalanx.run_folder import code_hash, names

_PARTS = ("code", "data", "auto")
_NOT_SHOWN = (errno.EACCES, errno.EPERM, errno.EIO, errno.ESTALE)  # which say nothing of what a file holds


@dataclass
class RunDifferences:
    """What this command's run and the one in the folder differ in.

    `other` are lines on the config, `code` and `data` on what these hold, `moved` the data sets whose path alone is another
    one, with a line each. `damage` says what is wrong with a file by which they are compared, by its name. `before` is
    environment.json, its parts empty where it cannot be read. A damaged resolved.yaml is no other config where another
    file of the run holds the digest of this one.
    """

    other: list[str] = field(default_factory=list)
    code: list[str] = field(default_factory=list)
    data: list[str] = field(default_factory=list)
    moved: dict[str, str] = field(default_factory=dict)
    damage: dict[str, str] = field(default_factory=dict)
    before: dict[str, Any] = field(default_factory=lambda: {part: {} for part in _PARTS})

    @property
    def all(self) -> list[str]:
        return [*self.damage.values(), *self.other, *self.changed]

    @property
    def changed(self) -> list[str]:
        return [*self.code, *self.data]


def compare(run: Path, config: Config) -> RunDifferences:
    """Compare the folder's stored config and environment with `config`. Nothing is built or hashed.

    Raises ConfigError if a file cannot be read for lack of permission or an I/O error: it may be undamaged.
    """
    found = RunDifferences()
    texts = dict(_texts(run, found))
    if names.ENVIRONMENT in texts:
        try:
            before = json.loads(texts[names.ENVIRONMENT])
            if not all(isinstance(before[part], dict) for part in _PARTS):
                raise ValueError("parts are missing")
            found.before = before
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            found.damage[names.ENVIRONMENT] = f"{run / names.ENVIRONMENT} is damaged ({error})"
    stored = None
    if names.RESOLVED in texts:
        try:
            stored = resolved.parse(texts[names.RESOLVED])
        except ConfigError as error:
            found.damage[names.RESOLVED] = f"{run / names.RESOLVED} is damaged ({error})"
    if stored is None:
        attested = not {digest.digest(config), *former_digests(config)}.isdisjoint(_digests(run, found.before))
        found.other += [] if attested else ["no file of it holds the digest of this config"]
        return found
    for key, line in digest.differing(digest.defining(stored), digest.defining(config)).items():
        data_set = _whose_path(key, stored, config)
        if data_set is None:
            found.other.append(line)
        else:
            found.moved[data_set] = line
    return found


def _texts(run: Path, found: RunDifferences) -> Iterator[tuple[str, str]]:
    """What the two files hold that tell what the run is, by their names; one that holds no text is noted as damaged."""
    for name in (names.ENVIRONMENT, names.RESOLVED):
        try:
            yield name, read_text(run / name)
        except (OSError, ValueError) as error:
            if isinstance(error, OSError) and error.errno in _NOT_SHOWN:
                raise ConfigError(
                    f"{run / name} cannot be read: {error.strerror}. Mount it, or mend that, and type the same command "
                    "again; or run.fresh=true to begin anew"
                ) from None
            found.damage[name] = f"{run / name} is damaged ({error})"


def compare_code_and_data(found: RunDifferences, code: Mapping[str, str], data: Mapping[str, str]) -> None:
    """Add differences of code and data hashes. Data at another path with an equal hash are no difference."""
    before, recorded = found.before["code"], found.before["data"]
    found.code += code_hash.changed_files(before, code) if before else []
    for name in sorted(recorded.keys() | data.keys() if recorded else ()):
        known = recorded.get(name) == data.get(name)
        if not known and names.DRAWS not in (recorded.get(name), data.get(name)):
            found.data.append(f"what {name} holds")
        if not known and name in found.moved:
            found.other.append(found.moved.pop(name))


def saved(run: Path) -> bool:
    """Whether the run ever saved a step, as far as anybody can tell: a checkpoint is there, or events.jsonl has one."""
    return _holds_steps(run / names.CHECKPOINTS) or _tells_of_one(run / names.EVENTS)


def _holds_steps(folder: Path) -> bool:
    try:
        return any(name.startswith(names.STEP) for name in os.listdir(folder))
    except FileNotFoundError:
        return False
    except OSError:
        return True


def _tells_of_one(events: Path) -> bool:
    try:
        with os.fdopen(open_regular(events), encoding="utf-8", errors="replace") as lines:
            return any('"event":"checkpoint"' in line.replace(" ", "") for line in lines)
    except FileNotFoundError:
        return False
    except OSError:
        return True


def _digests(run: Path, before: Mapping[str, Any]) -> set[str]:
    """The config digests in environment.json and in the manifests, of damaged checkpoints, too."""
    manifests = [read_json(path) for path in (run / names.CHECKPOINTS).glob(f"{names.STEP}*/{names.MANIFEST}")]
    return {str(known.get("config_digest")) for known in (before, *manifests) if isinstance(known, dict)}


def _whose_path(key: str, stored: Config, config: Config) -> str | None:
    """The data set that `key` says a place of; None where it says something else, in either config."""
    sets = [f"data.{name}" for name in data_sets(config.data)]
    name = next((name for name in (*sets, "train.init_from") if f"{key}.".startswith(f"{name}.")), None)
    values = [_value(digest.defining(of), key) for of in (stored, config)]
    return (
        name if all(isinstance(value, str) and (os.sep in value or Path(value).exists()) for value in values) else None
    )


def _value(node: Any, key: str) -> Any:
    return dict(digest.leaves(node)).get(key)

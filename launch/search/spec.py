"""Parses and checks the command line of a sweep: its folder, its search space, its identity on resume."""

import hashlib
import json
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from phalanx.common.escaping import deferred_env
from phalanx.common.redaction import REDACTED
from phalanx.config.metric_direction import of_sweep
from phalanx.config.schema import Config, NoPruner, SweepConfig
from phalanx.exit.codes import ConfigError

from ..common.find_run import is_sweep
from ..common.job_variables import is_job_variable
from ..submission.record import run_root
from .grammar import nothing_swept
from .optuna_study import tries_all
from .pruners import pruner_config
from .space import SearchSpace, parse_space
from .validation import validated_configs


@dataclass(frozen=True)
class SweepSpec:
    """`config` is that of a point, `sweep` says which metric ranks the trials.

    `trial_overrides` are words for every trial as well, which have no part in what the sweep is.
    `identities`: what the sweep is, as this version spells it and as earlier ones did. `deferred` are the keys, with their
    values, that each job of the sweep looks up for itself.
    """

    folder: Path
    space: SearchSpace
    config: Config
    sweep: SweepConfig
    identities: Sequence[Mapping[str, Any]]
    deferred: Mapping[str, str]
    trial_overrides: tuple[str, ...]


def sweep_spec(
    typed: Sequence[str], trial_overrides: Sequence[str] = (), job_variables: Collection[str] = ()
) -> SweepSpec:
    """Parse `typed`; `trial_overrides` are words for every trial that have no part in the sweep's identity.

    `job_variables` are environment variables that only the sweep's jobs know, beside those that every job has.

    Raises ConfigError for whatever is wrong. Nothing is written.
    """
    from phalanx.compose.compose import choices  # here, for Hydra takes longer to import than all the rest
    from phalanx.compose.digest import deferred_keys, defining
    from phalanx.compose.former_digests import former_definings

    space = parse_space(typed, lambda group: choices(group, [word for word in typed if word.startswith("-")]))
    found = validated_configs(space, trial_overrides)
    config = found[0]
    if not space.dimensions:
        raise nothing_swept([word for word in space.typed if isinstance(word, str)])
    sweep = _resolved(found, typed, space)
    if tries_all(sweep):
        space.grid()
    anywhere = _anywhere(found, space, trial_overrides, job_variables)
    former = former_definings(anywhere[0])
    identities = [_identity(space, sweep, shared) for shared in (defining(anywhere[0]), *former)]
    left = {key: value for each in anywhere for key, value in deferred_keys(defining(each)).items()}
    named = [word for word in typed if word.startswith("run.name=")]
    hides = REDACTED in json.dumps(former)
    name = str(config.run.name) if named else _name(identities, hides, run_root(config.run))
    return SweepSpec(run_root(config.run) / name, space, config, sweep, identities, left, tuple(trial_overrides))


def _anywhere(
    found: Sequence[Config], space: SearchSpace, trial_overrides: Sequence[str], job_variables: Collection[str]
) -> Sequence[Config]:
    """The points `found` without what one job alone knows: a sweep is the same one in all of its jobs."""
    if not job_variables and not any(map(is_job_variable, os.environ)):
        return found
    with deferred_env(lambda name: name in job_variables or is_job_variable(name)):
        return validated_configs(space, trial_overrides)


def _identity(space: SearchSpace, sweep: SweepConfig, shared: Mapping[str, Any]) -> Mapping[str, Any]:
    """What may not change when a sweep goes on; `shared` is what defines a point."""
    from phalanx.compose.digest import leaves

    apart = {"trials", "slots", "per_gpu", "ranks", "max_failures", "storage"}
    settings = {name: str(value) for name, value in vars(sweep).items() if name not in apart}
    settings["pruner"] = _pruner_text(sweep.pruner)
    swept = {dimension.key.lstrip("+") for dimension in space.dimensions}
    fixed = {key: value for key, value in leaves(shared) if not any(_under(key, name) for name in swept)}
    dimensions = [vars(dimension) for dimension in space.dimensions]
    return {"space": dimensions, **settings, "shared config": _sha256(fixed)}


def _pruner_text(pruner: Mapping[str, Any]) -> str:
    """A pruner's part in a sweep's identity.

    Earlier versions gave every pruner these three keys, so all have them here; what a pruner has beyond them follows.
    """
    name = pruner["name"]
    own = {key: pruner[key] for key in sorted(pruner) if key != "name"}
    keys = ", ".join(
        f"{key}={value}" for key, value in ({"first_step": None, "eta": 3, "after_trials": 0} | own).items()
    )
    return f"PrunerConfig(name=<PrunerName.{name}: '{name}'>, {keys})"


def _name(identities: Sequence[Mapping[str, Any]], hides: bool, root: Path) -> str:
    """The sweep's name by what it is; where an earlier version began it under another one, that.

    Raises ConfigError where that version hid a value (`hides`), so that its sweep may be of another one.
    """
    name, *before = [f"sweep-{_sha256(each)[:8]}" for each in identities]
    former = next((known for known in before if is_sweep(root / known)), None)
    if former is None or os.path.lexists(root / name):
        return name
    if hides:
        raise ConfigError(
            f"{root / former} is this sweep or one that differs where an earlier version wrote {REDACTED}. "
            f"Type run.name={former} to continue it, or run.name={name} for another sweep"
        )
    return former


def _resolved(configs: Sequence[Config], typed: Sequence[str], space: SearchSpace) -> SweepConfig:
    """The sweep's settings with what they leave to others filled in."""
    config, sweep = configs[0], configs[0].sweep
    if any(word.startswith("run.fresh=") for word in typed):
        raise ConfigError(
            "run.fresh would set every trial aside when the sweep goes on. Type run.name=… for a new sweep"
        )
    metric, mode = of_sweep(config)
    sweep = replace(sweep, metric=metric, mode=mode)
    if sweep.seeds > 1 and any(dimension.key == "seed" for dimension in space.dimensions):
        raise ConfigError(f"sweep.seeds={sweep.seeds} sets the seeds, and seed is swept, too. Leave one of them out")
    pruner = pruner_config(sweep.pruner, typed)
    if isinstance(pruner, NoPruner):
        return sweep
    if sweep.seeds > 1:
        raise ConfigError(
            f"sweep.seeds={sweep.seeds} ranks points by the mean of their runs, and sweep/pruner={pruner.name} "
            "ends single runs. Type sweep/pruner=none, or sweep.seeds=1"
        )
    first = pruner.first_step or config.eval.every
    if first is None or any(each.eval.every is None for each in configs):
        raise ConfigError(
            f"sweep/pruner={pruner.name} compares trials under way, and they are evaluated at their ends only. "
            "Type eval.every=… with a number of steps"
        )
    return replace(sweep, pruner={**sweep.pruner, "first_step": first})


def _sha256(value: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _under(key: str, name: str) -> bool:
    """Whether a key of the config is one that `name` sets, a key or a group."""
    dotted = name.partition("@")[0].replace("/", ".")
    return key == dotted or key.startswith(f"{dotted}.")

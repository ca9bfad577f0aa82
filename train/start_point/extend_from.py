"""Extend a run: go on from a checkpoint of another run, with its optimizer's state, under a config of its own."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from phalanx.common.files import read_json, read_text
from phalanx.compose import digest
from phalanx.config.run_root import folder_of_run
from phalanx.config.schema import Config, RunConfig
from phalanx.exit.codes import ConfigError
from phalanx.run_folder import names
from phalanx.run_folder.checkpoints import Checkpoint, source

from ..checkpoint.open_run import stored_config
from ..checkpoint.progress import EarlyStopState, Progress
from ..checkpoint.state import State, restore, unpickled
from ..freezing.phased_updater import PhasedUpdater
from ..optim.updater import Updater
from .group_changes import group_changes, numbers, only_a_number

KEY = "train.extend_from"  # also names the record of where a run began, in environment.json
_RECORD = re.compile(r"step (\d+) at position (\d+), weights (\w+)")

# What another value of is another run, and may differ all the same. A run that began from weights is extended from its end.
_MAY_DIFFER = {
    "train.steps",
    "train.epochs",
    KEY,
    "train.global_batch",
    "train.micro_batch",
    "train.average_last",
    "checkpoint.every",
}
_GROUPS = "optim.groups"
_SAME_GROUPS = (
    "Of optim.groups rates, schedules and numbers may change, but neither what is matched nor to or from zero. "
)
_SECTIONS = ("schedule.", "train.init_", "early_stop.", "eval.", "train.time_limit")
_FACTOR = 2.0  # between the rates of two steps, from which on it is worth a warning


@dataclass(frozen=True)
class Extension:
    """Where a run begins that extends another. `record` tells it, None where the end of a finished run does.

    `checkpoint` is None where `gone` says why: it is needed only by a run that has saved nothing of its own yet. `changed`
    names hyperparameters of the optimizer that the extended run had other values of; `rescheduled` is whether its learning
    rate or schedule is another. `rates` are those of its last step, of all groups of its optimizers, `peak` is this run's
    optim.lr.
    """

    step: int
    position: int
    checkpoint: Checkpoint | None
    gone: str
    record: str | None
    changed: tuple[str, ...]
    rescheduled: bool
    peak: float | None = None
    rates: tuple[float | None, ...] = ()


def extension(config: Config) -> Extension | None:
    """What train.extend_from names: a run's newest checkpoint, or a checkpoint of a run. Only rank 0 calls it.

    An unfinished run may have gone on since the first start of this one, whose record then says where it began. Raises
    ConfigError if there is nothing to extend, or if its config is another in more than length, rate, schedule and batch.
    """
    if config.train.extend_from is None:
        return None
    given = Path(config.train.extend_from).expanduser()
    run = given.parent.parent if (given / names.MANIFEST).is_file() or given.name.startswith(names.STEP) else given
    if not (run / names.RESOLVED).is_file():
        raise ConfigError(
            f"train.extend_from={given} is no run's folder: it has no {names.RESOLVED}. Type a run's folder, or that of "
            "one of its checkpoints"
        )
    changed = _changed(run, config)
    record = _recorded(config.run)
    if record is not None and (found := _RECORD.fullmatch(record)) is not None:
        try:
            checkpoint = source(run / names.CHECKPOINTS / names.step_folder(int(found[1])), want_best=False)
        except ConfigError as error:
            return Extension(int(found[1]), int(found[2]), None, str(error), record, *changed)
        if checkpoint.manifest["weights_sha256"] != found[3]:
            gone = f"{checkpoint.folder} holds other weights than when this run began"
            return Extension(int(found[1]), int(found[2]), None, gone, record, *changed)
    else:
        checkpoint = source(given, want_best=False)
    ends = given == run and _steps(run)
    if ends and ends != checkpoint.step and record is None:
        raise ConfigError(
            f"train.extend_from={run} ended at step {ends}, but its newest checkpoint is of step {checkpoint.step}"
        )
    progress = checkpoint.progress()
    step, position = progress["step"], progress["position"]
    if record is None and not ends:
        record = f"step {step} at position {position}, weights {checkpoint.manifest['weights_sha256']}"
    return Extension(step, position, checkpoint, "", record, *changed, config.optim.get("lr"), _rates(checkpoint))


def extend(state: State, extension: Extension, began: float) -> Progress:
    """Load the checkpoint into a new run: all of its state but for the hyperparameters that changed. All ranks call it."""
    if extension.checkpoint is None:
        raise ConfigError(f"{KEY}: {extension.gone}. Type run.fresh=true to begin anew from where it is now")
    given = [[_values(group, extension.changed) for group in each.param_groups] for each in _optimizers(state)]
    progress = restore(state, extension.checkpoint, schedules=not extension.rescheduled)
    for optimizer, groups in zip(_optimizers(state), given, strict=True):
        for group, values in zip(optimizer.param_groups, groups, strict=True):
            group.update(values)
    # The best step, the times and what ended it are the new run's own, and so is its first line.
    return replace(
        progress,
        began=began,
        best_step=None,
        best_value=None,
        evaluated=None,
        top=[],
        seconds={},
        world_sizes=[],
        records=[],
        early_stop=EarlyStopState(),
        ended_by=None,
    )


def seam(extension: Extension, state: State) -> tuple[dict[str, Any], str | None]:
    """For the event the learning rates before and after, of each group; and a warning where one jumps."""
    if extension.checkpoint is None:
        return {}, None
    pairs = {
        name: (before, after)
        for name, (before, after) in _seams(state, extension.rates).items()
        if before is not None and after is not None
    }
    told = {name: {"before": before, "after": after} for name, (before, after) in pairs.items()}
    jumps = [
        _jump(name, *pair, extension.peak)
        for name, pair in pairs.items()
        if not pair[0] / _FACTOR <= pair[1] <= pair[0] * _FACTOR
    ]
    return told, "; ".join(jumps) or None


def _jump(name: str, before: float, after: float, peak: float | None) -> str:
    """In words; what to type where it is the rate of the run."""
    told = (
        f"{name}: {before:.3g} before, in the last step of the run that is extended, and {after:.3g} after, in the first "
        "step here"
    )
    if name != "lr":
        return told
    scaled = (
        ""
        if peak is None or not before or not after
        else f"optim.lr={peak * before / after:.6g} for this schedule, or "
    )
    return f"{told}. To go on at the rate it had type {scaled}schedule=constant optim.lr={before:.6g}"


def _changed(run: Path, config: Config) -> tuple[tuple[str, ...], bool]:
    """The optimizer's hyperparameters that differ, and whether its rates do.

    Raises ConfigError if more differs than may.
    """
    before, now = digest.defining(stored_config(run)), digest.defining(config)
    old, new = dict(digest.leaves(before)), dict(digest.leaves(now))
    lines = digest.differing(before, now)
    hyperparameters = [key for key in lines if _only_a_number(key, old.get(key), new.get(key))]
    groups = group_changes(before["optim"], now["optim"]) if _GROUPS in lines else None
    others = [
        line
        for key, line in lines.items()
        if key not in _MAY_DIFFER
        and not key.startswith(_SECTIONS)
        and key not in hyperparameters
        and not (key == _GROUPS and groups is not None)
    ]
    if others:
        raise ConfigError(
            f"train.extend_from={run} was trained with another config, and only length, learning rate, schedule and batch "
            f"may change: {'; '.join(others)}. {_SAME_GROUPS if _GROUPS in lines and groups is None else ''}Drop these, or "
            f"begin a new run from its weights: train.init_from={run}"
        )
    rescheduled = any(key in ("optim.lr", "optim.layer_decay") or key.startswith("schedule.") for key in lines)
    names = dict.fromkeys(key.removeprefix("optim.") for key in hyperparameters)
    if groups is not None:
        names |= dict.fromkeys(sorted(groups.names))
        rescheduled |= groups.rescheduled
    return tuple(names), rescheduled


def _only_a_number(key: str, was: object, now: object) -> bool:
    """Whether it is a hyperparameter with another number, which leaves the optimizer's state and groups as they are.

    Not from or to zero: no weight decay is one group, no momentum is no state.
    """
    section, _, name = key.rpartition(".")
    return section == "optim" and (only_a_number(was, now) or (name == "lr" and numbers(was) and numbers(now)))


def _values(group: Mapping[str, Any], changed: Sequence[str]) -> dict[str, Any]:
    """As this run has them; a scheduler of torch keeps the rate that it began with beside."""
    kept = (*changed, "initial_lr") if "lr" in changed else changed
    return {name: group[name] for name in kept if name in group}


def _updaters(state: State) -> list[Updater]:
    """One, or those of the task's phases."""
    return [state.updater] if isinstance(state.updater, Updater) else list(state.updater.phases.values())


def _optimizers(state: State) -> list[torch.optim.Optimizer]:
    return [each.optimizer for updater in _updaters(state) for each in updater.optimizers]


def _rates(checkpoint: Checkpoint) -> tuple[float | None, ...]:
    """The learning rates of the last step, of all groups: one phase, and in it one optimizer, after the other."""
    update = unpickled(checkpoint.file(names.STATE), torch.device("cpu"))["update"]
    parts = list(update["phases"].values()) if "phases" in update else [update]
    found = [
        group.get("lr")
        for part in parts
        for optimizer in (part["optimizer"], *part.get("optimizers", ()))
        for group in optimizer["param_groups"]
    ]
    return tuple(None if rate is None else float(rate) for rate in found)


def _seams(state: State, before: Sequence[float | None]) -> dict[str, tuple[float | None, float | None]]:
    """Rate before and rate after of each group, by name as lines of metrics have it; groups of one name have one rate."""
    rates, found = iter(before), dict[str, tuple[float | None, float | None]]()
    updaters = state.updater.phases if isinstance(state.updater, PhasedUpdater) else {"": state.updater}
    for phase, updater in updaters.items():
        own: dict[str, tuple[float | None, float | None]] = {}
        for optimizer in updater.optimizers:
            for name, after in optimizer.named_rates(int(updater.applied), updater.taken):
                was = next(rates, None)
                own.setdefault(name, (was, after))
        first, *others = own
        found.setdefault("lr", own[first])
        if phase:
            found[f"lr/{phase}"] = own[first]
        found |= {f"lr/{name}": own[name] for name in others}
    return found


def _steps(run: Path) -> int | None:
    """The steps of a finished run."""
    try:
        return int(json.loads(read_text(run / names.SUMMARY))["steps"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _recorded(run: RunConfig) -> str | None:
    """Where this run began, as its first start wrote it down."""
    if run.fresh or run.name is None:
        return None
    known = read_json(folder_of_run(run.root, run.name) / names.ENVIRONMENT)
    data = known.get("data") if isinstance(known, dict) else None
    found = data.get(KEY) if isinstance(data, dict) else None
    return found if isinstance(found, str) else None

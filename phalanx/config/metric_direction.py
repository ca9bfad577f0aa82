"""Which metrics of which evaluation sets decide something, and whether each is maximised or minimised.

As configured, else by the name: never guessed.
"""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ..exit.codes import ConfigError
from .overrides import shown
from .schema import Config, DataConfig, Mode, Node

EVAL = "eval"  # the split of data.eval where that is one set
TEST = "test"
RESERVED = ("train", TEST)  # splits that no set of data.eval may be called by

# Endings of names, split/name and camel case included. The short ones count as a whole word: power ends in wer.
_LESS = re.compile(r"loss$|error$|perplexity$|bits_per_byte$|rmse$|(?<![^\W_])wer$|(?<![^\W_])cer$", re.IGNORECASE)
_MORE = re.compile(r"(?<!in)accuracy$|bleu$|miou$|ndcg$|(?<![^\W_])f1$|(?<![^\W_])auc$|(?<![^\W_])map$", re.IGNORECASE)
_SPLIT = re.compile(r"[A-Za-z0-9][\w-]*", re.ASCII)  # part of a file's name and of split/name

Results = Mapping[str, Mapping[str, Any]]
"""What one evaluation of all sets found: metrics by name, by split."""


@dataclass(frozen=True)
class WatchedMetric:
    """A metric of one evaluation set, by which checkpoints, steps or trials are compared."""

    split: str
    name: str
    mode: Mode

    def value(self, results: Results) -> float | None:
        """Its value, None where it was not evaluated or is not finite."""
        found = results.get(self.split, {}).get(self.name)
        return float(found) if isinstance(found, int | float) and math.isfinite(found) else None

    def is_better(self, value: float, than: float) -> bool:
        return value > than if self.mode is Mode.max else value < than


def has_named_sets(data: DataConfig) -> bool:
    """Whether the keys of data.eval name sets, rather than being one itself."""
    return data.eval is not None and "_target_" not in data.eval


def eval_sets(data: DataConfig) -> dict[str, Node]:
    """The data sets of evaluations by split, in their order; of those that data.eval names one of null is left out."""
    if data.eval is None:
        return {}
    return (
        {split: node for split, node in data.eval.items() if node is not None}
        if has_named_sets(data)
        else {EVAL: data.eval}
    )


def data_sets(data: DataConfig) -> dict[str, Node]:
    """All data sets by the rest of their keys below `data`: train, eval or eval.<split>, test."""
    named = {f"{EVAL}.{split}" if has_named_sets(data) else split: node for split, node in eval_sets(data).items()}
    test = {} if data.test is None else {TEST: data.test}
    return {"train": data.train, **named, **test}


def check_sets(data: DataConfig) -> None:
    """Raise ConfigError where data.eval names no sets, or by names that cannot be splits."""
    if not has_named_sets(data):
        return
    assert data.eval is not None
    if not eval_sets(data):
        raise ConfigError("data.eval names no data set. Type data.eval=null for none, or give it a _target_")
    for split, node in data.eval.items():
        if not isinstance(split, str) or not _SPLIT.fullmatch(split):
            raise ConfigError(
                f"data.eval has a set called {split!r}. The name is that of its split, in files' names, too: give it one "
                "of letters, digits, - and _"
            )
        if split in RESERVED:
            raise ConfigError(
                f"data.eval.{split} has a name that is reserved: {split} is the split of data.{split}. "
                + ("Type data.test=… for a set that is evaluated once, at the end" if split == TEST else "Name it anew")
            )
        if node is not None and not (isinstance(node, dict) and "_target_" in node):
            raise ConfigError(
                f"data.eval.{split} is {shown(node)}, and should be a data set, as data.eval has no _target_ and so each "
                f"of its keys names one. Type +data.eval.{split}._target_=package.module.Class, or +data.eval._target_=…"
            )


def split_and_name(metric: str, data: DataConfig) -> tuple[str, str]:
    """The split and the name of a metric typed as `name` or `split/name`; `name` alone is of the first set."""
    splits = list(eval_sets(data)) or [EVAL]
    split, _, name = metric.partition("/")
    return (split, name) if name and split in (*splits, *RESERVED) else (splits[0], metric)


def watched(metric: str, mode: Mode | None, key: str, data: DataConfig) -> WatchedMetric:
    """The metric that is typed as `name` or `split/name`, and its direction, which `mode` is or the name tells.

    `key` is that of the direction, such as "early_stop.mode". Raises ConfigError.
    """
    split, name = split_and_name(metric, data)
    if split in RESERVED:
        sets = ", ".join(f"{known}/{name}" for known in eval_sets(data)) or f"{name}, and data.eval=…"
        why = "data.test is evaluated once, at the end" if split == TEST else "what is trained on tells nothing"
        raise ConfigError(f"{_metric_key(key)}={metric} would choose by the split {split}: {why}. Type {sets}")
    try:
        return WatchedMetric(split, name, direction(name, mode, key))
    except ConfigError as error:
        raise ConfigError(str(error).replace(f"={name}:", f"={metric}:", 1)) from None


def name_in(metric: str, split: str) -> str | None:
    """The name that a metric has in lines of `split`, as `of_sweep` spells it; None where it is another split's."""
    of, _, name = metric.partition("/")
    if name and of == split:
        return name
    return metric if split == EVAL else None


def as_stored(results: Results) -> dict[str, Any]:
    """The results as checkpoints and summary.json hold them: those of one set, or of several by split."""
    return {split: dict(found) for split, found in results.items()} if list(results) != [EVAL] else dict(results[EVAL])


def as_results(stored: Mapping[str, Any]) -> Results:
    """What `as_stored` was given."""
    nested = bool(stored) and all(isinstance(found, Mapping) for found in stored.values())
    return stored if nested else {EVAL: stored}


def direction(metric: str, mode: Mode | None, key: str) -> Mode:
    """The direction of `metric`. Raises ConfigError, which names the key `key` for it, if the name does not tell."""
    if mode is not None:
        return mode
    parts = metric.split("/")
    for end in range(len(parts), 0, -1):  # f1/cat is the f1 of a class, whose own name tells nothing
        for pattern, known in ((_LESS, Mode.min), (_MORE, Mode.max)):
            if pattern.search("/".join(parts[:end])):
                return known
    raise ConfigError(
        f"{_metric_key(key)}={metric}: no name tells whether more or less of it is better. "
        f"Type {key}=max, or {key}=min where less is"
    )


def _metric_key(key: str) -> str:
    section = key.rpartition(".")[0]
    return f"{section}.{'best_metric' if section == 'checkpoint' else 'metric'}"


def of_checkpoint(config: Config) -> WatchedMetric | None:
    """The metric of checkpoint.best_metric; None if that is null. Raises ConfigError."""
    checkpoint = config.checkpoint
    if checkpoint.best_metric is None:
        return None
    return watched(checkpoint.best_metric, checkpoint.best_mode, "checkpoint.best_mode", config.data)


def early_stop_metric(config: Config) -> WatchedMetric | None:
    """The metric of early_stop; None if that is null. Raises ConfigError."""
    stop = config.early_stop
    return None if stop.metric is None else watched(stop.metric, stop.mode, "early_stop.mode", config.data)


def of_sweep(config: Config) -> tuple[str, Mode]:
    """The metric that ranks a sweep's trials, with its split where data.eval names sets, and its direction.

    Defaults to checkpoint.best_metric; checkpoint.best_mode is used only for the same metric. Raises ConfigError.
    """
    sweep, checkpoint = config.sweep, config.checkpoint
    metric = sweep.metric or checkpoint.best_metric
    if metric is None:
        raise ConfigError("Nothing says what makes a trial good. Type sweep.metric=loss, or another one of the task")
    same = checkpoint.best_mode if metric == checkpoint.best_metric else None
    found = watched(metric, sweep.mode or same, "sweep.mode", config.data)
    return f"{found.split}/{found.name}" if has_named_sets(config.data) else found.name, found.mode


def steering(config: Config) -> dict[str, str]:
    """The metrics of evaluations that decide how training goes on, by the key that names each.

    Where there is one, every key of `eval` defines the result: when evaluations are, and of what.
    """
    found = dict(_of_schedules(config.schedule, "schedule"))
    if config.early_stop.metric is not None:
        found["early_stop.metric"] = config.early_stop.metric
    for i, group in enumerate(_groups(config.optim)):
        found |= _of_schedules(group.get("schedule"), f"optim.groups.{i}.schedule")
    return found


def _groups(optim: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    groups = optim.get("groups")
    return [group for group in groups if isinstance(group, Mapping)] if isinstance(groups, list) else []


def _of_schedules(node: Any, where: str) -> Iterator[tuple[str, str]]:
    if isinstance(node, Mapping) and (metric := plateau_metric(node)) is not None:
        yield f"{where}.metric", metric


def plateau_metric(schedule: Mapping[str, Any]) -> str | None:
    """The metric for whose plateau a schedule waits, None where it waits for none.

    Such a schedule names its metric, and no other has a key of that name; for torch's, it is loss where none is named.
    """
    torchs = str(schedule.get("_target_")).endswith(".ReduceLROnPlateau")
    metric = schedule.get("metric")
    return metric if isinstance(metric, str) else "loss" if torchs else None

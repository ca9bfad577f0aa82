"""Which metrics decide something, and whether each is maximised or minimised: as configured, else by its name."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from ..exit.codes import ConfigError
from .schema import CheckpointConfig, Config, Mode

# Endings of names, split/name and camel case included. The short ones count as a whole word: power ends in wer.
_LESS = re.compile(r"loss$|error$|perplexity$|rmse$|(?<![^\W_])wer$|(?<![^\W_])cer$", re.IGNORECASE)
_MORE = re.compile(r"(?<!in)accuracy$|bleu$|miou$|ndcg$|(?<![^\W_])f1$|(?<![^\W_])auc$|(?<![^\W_])map$", re.IGNORECASE)


def direction(metric: str, mode: Mode | None, key: str) -> Mode:
    """The direction of `metric`. Raises ConfigError, which names the key `key` for it, if the name does not tell."""
    if mode is not None:
        return mode
    parts = metric.split("/")
    for end in range(len(parts), 0, -1):  # f1/cat is the f1 of a class, whose own name tells nothing
        for pattern, known in ((_LESS, Mode.min), (_MORE, Mode.max)):
            if pattern.search("/".join(parts[:end])):
                return known
    section = key.partition(".")[0]
    named = "best_metric" if section == "checkpoint" else "metric"
    raise ConfigError(
        f"{section}.{named}={metric}: no name tells whether more or less of it is better. "
        f"Type {key}=max, or {key}=min where less is"
    )


def of_checkpoint(checkpoint: CheckpointConfig) -> Mode | None:
    """The direction of checkpoint.best_metric; None if it is null. Raises ConfigError."""
    if checkpoint.best_metric is None:
        return None
    return direction(checkpoint.best_metric, checkpoint.best_mode, "checkpoint.best_mode")


def of_sweep(config: Config) -> tuple[str, Mode]:
    """The metric that ranks a sweep's trials, and its direction. Raises ConfigError.

    Defaults to checkpoint.best_metric; checkpoint.best_mode is used only for the same metric.
    """
    sweep, checkpoint = config.sweep, config.checkpoint
    metric = sweep.metric or checkpoint.best_metric
    if metric is None:
        raise ConfigError("Nothing says what makes a trial good. Type sweep.metric=loss, or another one of the task")
    same = checkpoint.best_mode if metric == checkpoint.best_metric else None
    return metric, direction(metric, sweep.mode or same, "sweep.mode")


def steering(config: Config) -> dict[str, str]:
    """The metrics of evaluations that decide how training goes on, by the key that names each.

    Where there is one, every key of `eval` defines the result: when evaluations are, and of what.
    """
    found = dict(_of_schedules(config.schedule, "schedule"))
    for i, group in enumerate(_groups(config.optim)):
        found |= _of_schedules(group.get("schedule"), f"optim.groups.{i}.schedule")
    return found


def _groups(optim: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    groups = optim.get("groups")
    return [group for group in groups if isinstance(group, Mapping)] if isinstance(groups, list) else []


def _of_schedules(node: Any, where: str) -> Iterator[tuple[str, str]]:
    """A schedule that waits for a plateau names its metric, and no other has such a key."""
    if isinstance(node, Mapping) and isinstance(node.get("metric"), str):
        yield f"{where}.metric", node["metric"]

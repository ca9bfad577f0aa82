"""Whether a metric is maximised or minimised: as configured, else by its name; never guessed."""

import re

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

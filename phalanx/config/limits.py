"""Checks that need the config and the number of ranks alone: ranges of numbers, and combinations of keys."""

import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

from ..common.name_patterns import no_pattern
from ..exit.codes import ConfigError
from .average_last import check_average_last
from .init_keys import check_init
from .metric_direction import check_sets, early_stop_metric, of_checkpoint, steering
from .overrides import shown
from .run_root import folder_of_runs
from .schema import (
    Backend,
    CommHook,
    Config,
    Device,
    EarlyStopConfig,
    Leaf,
    Mode,
    Node,
    ParallelConfig,
    PrecisionName,
    RunConfig,
    TrainConfig,
    WandbMode,
    schema,
)
from .time_limit import seconds_of

FINISH_S = 30.0  # longest wait at the end for a tracker that has no key for it
_LONGEST_NAME = 200  # bytes; file systems take 255, and a folder that is set aside gets a longer name


def check(config: Config, ranks: int) -> None:
    """Raise ConfigError if `config` is not valid for `ranks` ranks."""
    for message in out_of_range(config, ""):
        raise ConfigError(message)
    _check_name(config.run)
    _check_train(config.train)
    check_average_last(config)
    _check_freeze(config.train.freeze, config.parallel.comm_hook)
    _check_batch(config.train, config.parallel, ranks)
    check_sets(config.data)
    of_checkpoint(config)
    _check_evaluations(config)
    early_stop_metric(config)
    _check_early_stop(config.early_stop)
    if config.train.time_limit is not None:
        seconds_of(config.train.time_limit)
    for key, metric in steering(config).items():
        _check_evaluated(config, key, metric)
    if "decay_1d" in config.optim and type(config.optim["decay_1d"]) is not bool:
        raise ConfigError(
            "optim.decay_1d must be true or false: whether weight decay is for biases and norm weights, too. "
            "Type ++optim.decay_1d=true"
        )
    _check_sinks(config)
    if config.world.device is Device.cpu and config.world.backend is Backend.nccl:
        raise ConfigError("world.backend=nccl needs GPUs, and world.device=cpu is set. Type world.backend=gloo")


def _check_evaluated(config: Config, key: str, metric: str) -> None:
    """`key` names a metric that decides how training goes on, so there are to be evaluations before the end."""
    if config.data.eval is None:
        raise ConfigError(
            f"{key}={metric} is of evaluations, and data.eval=null, so there are none. Type data.eval=… with a data set"
        )
    if config.eval.every is None and config.eval.every_epochs is None:
        raise ConfigError(
            f"{key}={metric} decides after evaluations how training goes on, and with eval.every=null and "
            "eval.every_epochs=null there is one at the end alone. Type eval.every=100"
        )


def out_of_range(node: Any, path: str) -> Iterator[str]:
    """One message for every number outside its limits; in open-ended groups for every number that is not finite."""
    if is_dataclass(node):
        for entry in fields(node):
            value, name = getattr(node, entry.name), f"{path}{entry.name}"
            leaf = entry.metadata.get("leaf")
            if leaf is not None and leaf.low is not None and type(value) in (int, float) and not _within(value, leaf):
                yield f"{name}={value} is out of range. Type a number that is {_range(leaf)}"
            yield from out_of_range(value, f"{name}.")
    elif isinstance(node, dict | list):
        for key, value in node.items() if isinstance(node, dict) else enumerate(node):
            if isinstance(value, float) and not math.isfinite(value):
                yield f"{path}{key}={value} is not finite. Type a number that is"
            yield from out_of_range(value, f"{path}{key}.")


def _within(value: float, leaf: Leaf) -> bool:
    assert leaf.low is not None
    return math.isfinite(value) and (leaf.low < value if leaf.above else leaf.low <= value) and value <= leaf.high


def _range(leaf: Leaf) -> str:
    lower = f"more than {leaf.low}" if leaf.above else f"at least {leaf.low}"
    return lower if leaf.high == math.inf else f"{lower} and at most {leaf.high}"


def _check_sinks(config: Config) -> None:
    for name, node in config.sinks.items():
        if not isinstance(node, dict) or "_target_" not in node:
            raise ConfigError(
                f"sinks.{name}={shown(node)} names no class. Type sinks.{name}._target_=package.module.Class with one "
                "that is derived from phalanx.Sink"
            )
    waits = (
        [] if config.wandb.mode is WandbMode.disabled else [("wandb.finish_timeout_s", config.wandb.finish_timeout_s)]
    )
    others = {"mlflow": config.mlflow.enabled, "trackio": config.trackio.enabled, "a sink": bool(config.sinks)}
    waits += [(f"the longest wait for {name}", FINISH_S) for name, enabled in others.items() if enabled]
    for what, seconds in waits:
        if config.world.timeout_s <= seconds:
            raise ConfigError(
                f"world.timeout_s={config.world.timeout_s:g} is not more than {what}={seconds:g}, for which the other "
                f"ranks wait at the end. Type world.timeout_s={seconds + 30:g}"
            )


def _check_name(run: RunConfig) -> None:
    name = run.name
    if name is not None and (not name.strip() or name[0] == "." or "/" in name or not name.isprintable()):
        raise ConfigError(
            f"run.name={name!r} cannot be a folder's name: it must not be empty, begin with a dot, or hold a slash or "
            "control characters. Type run.name=my-run"
        )
    if name is not None and len(os.fsencode(name)) > _LONGEST_NAME:
        raise ConfigError(f"run.name={name} has more than {_LONGEST_NAME} bytes. Type a shorter one")
    folder_of_runs(run.root)


def _check_train(train: TrainConfig) -> None:
    if train.steps is None and train.epochs is None:
        raise ConfigError("Neither train.steps nor train.epochs is set, so the run has no end. Type train.epochs=10")
    if train.precision is PrecisionName.bf16_pure and train.ema_decay is not None:
        raise ConfigError(
            f"train.ema_decay={train.ema_decay:g} with train.precision=bf16_pure would keep an average of 8 bits, which "
            "its small moves leave where it is. Type train.ema_decay=null, or train.precision=bf16"
        )
    every = train.checkpoint_activations
    if isinstance(every, int) and every < 1:
        raise ConfigError(f"train.checkpoint_activations={every} is no distance of blocks. Type 1 for each, or null")
    if train.init_from is not None and train.extend_from is not None:
        raise ConfigError(
            f"train.init_from={train.init_from} and train.extend_from={train.extend_from} are both set, and a run "
            "begins from one of them. Leave one out"
        )
    check_init(train)


def _check_freeze(rules: Sequence[Node], hook: CommHook) -> None:
    for i, rule in enumerate(rules):
        key, example = f"train.freeze[{i}]", "Type train.freeze=[{match: backbone, from: 0, until: null}]"
        if unknown := sorted(map(str, rule.keys() - {"match", "from", "until"})):
            raise ConfigError(f"{key} has {unknown[0]}, and a rule has match, from and until. {example}")
        match, start, until = rule.get("match"), rule.get("from", 0), rule.get("until")
        if (told := no_pattern(match or None, f"{key}.match", "match: backbone")) is not None:
            raise ConfigError(told)
        if type(start) is not int or start < 0:
            raise ConfigError(f"{key}.from={shown(start)} is no step. Steps are counted from 0: type from: 0")
        if until is not None and (type(until) is not int or until <= start):
            raise ConfigError(
                f"{key}.until={shown(until)} is no step after {start}, the first one that is frozen. Type until: "
                f"{start + 100}, or until: null for ever"
            )
        if hook is CommHook.powersgd and (start or until is not None):
            raise ConfigError(
                f"{key} begins or ends within the run, and parallel.comm_hook=powersgd keeps an error of each bucket of "
                "gradients, which are others then. Type parallel.comm_hook=bf16"
            )


def _check_early_stop(stop: EarlyStopConfig) -> None:
    if stop.metric is not None:
        return
    leaves = schema(EarlyStopConfig)
    for name in ("mode", "patience", "min_delta"):
        value = getattr(stop, name)
        if value != leaves[name].neutral:
            raise ConfigError(
                f"early_stop.{name}={value.name if isinstance(value, Mode) else value} is set, and early_stop.metric=null "
                "says that nothing ends the run early. Type early_stop.metric=loss, or another one of the task"
            )


def _check_evaluations(config: Config) -> None:
    if config.data.eval is None and config.eval.first:
        raise ConfigError(
            "eval.first=true evaluates before step 1, and data.eval=null. Type data.eval=…, or eval.first=false"
        )


def _check_batch(train: TrainConfig, parallel: ParallelConfig, ranks: int) -> None:
    batch, micro = train.global_batch, train.micro_batch
    if micro is None:
        if ranks > batch:
            raise ConfigError(
                f"train.global_batch={batch} gives {ranks} ranks less than one sample each. "
                f"Type train.global_batch={ranks}, or start at most {batch} ranks"
            )
    elif batch % micro:
        divisors = [d for d in range(1, batch + 1) if batch % d == 0]
        near = min(divisors, key=lambda d: abs(d - micro))
        raise ConfigError(
            f"train.global_batch={batch} is not divisible by train.micro_batch={micro}. Type train.micro_batch={near}"
        )
    elif ranks > batch // micro:
        raise ConfigError(
            f"train.global_batch={batch} is {batch // micro} micro-batches of {micro}, too few for {ranks} ranks. "
            f"Type train.micro_batch={max(1, batch // ranks)}, or start at most {batch // micro} ranks"
        )
    if parallel.sync_batchnorm and (batch // micro if micro else batch) % ranks:
        raise ConfigError(
            f"parallel.sync_batchnorm needs equal shares, and train.global_batch={batch} does not split evenly over "
            f"{ranks} ranks. Type train.global_batch={math.ceil(batch / ranks) * ranks}"
        )

"""The schema of a run: names, types and limits. Every default stands in conf/, none here."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, fields, is_dataclass
from enum import Enum
from typing import Any

from train.outcome import ConfigError

Node = dict[str, Any]


def _limited(low: float, high: float = math.inf, *, above: bool = False) -> Any:
    """A number within [low, high], or (low, high] where `above`."""
    return field(metadata={"low": low, "high": high, "above": above})


class PrecisionName(Enum):
    auto = "auto"
    fp32 = "fp32"
    tf32 = "tf32"
    bf16 = "bf16"
    fp16 = "fp16"
    fp64 = "fp64"


class Mode(Enum):
    max = "max"
    min = "min"


class WandbMode(Enum):
    auto = "auto"
    online = "online"
    offline = "offline"
    disabled = "disabled"


class Device(Enum):
    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


class Backend(Enum):
    auto = "auto"
    nccl = "nccl"
    gloo = "gloo"


class CommHook(Enum):
    none = "none"
    bf16 = "bf16"
    fp16 = "fp16"
    powersgd = "powersgd"


class Accept(Enum):
    changed = "changed"


@dataclass(frozen=True)
class RunConfig:
    root: str
    name: str | None
    fresh: bool
    accept: Accept | None
    trust: list[str]


@dataclass(frozen=True)
class TrainConfig:
    steps: int | None = _limited(1)
    epochs: float | None = _limited(0, above=True)
    global_batch: int = _limited(1)
    micro_batch: int | None = _limited(1)
    precision: PrecisionName = field()
    channels_last: bool = field()
    compile: bool = field()
    clip_norm: float | None = _limited(0, above=True)
    ema_decay: float | None = _limited(0, 1)
    deterministic: bool = field()
    threads: int | str = _limited(1)
    max_skips: int = _limited(1)
    init_from: str | None = field()
    extend_from: str | None = field()


@dataclass(frozen=True)
class EvalConfig:
    every: int | None = _limited(1)
    batch: int = _limited(1)


@dataclass(frozen=True)
class CheckpointConfig:
    every: int | None = _limited(1)
    every_s: float | None = _limited(0, above=True)
    keep: int = _limited(1)
    best_metric: str | None = field()
    best_mode: Mode = field()
    asynchronous: bool = field()


@dataclass(frozen=True)
class LogConfig:
    every: int = _limited(1)


@dataclass(frozen=True)
class WandbConfig:
    mode: WandbMode
    project: str
    entity: str | None
    group: str | None
    tags: list[str]
    finish_timeout_s: float = _limited(0, 30)


@dataclass(frozen=True)
class TensorboardConfig:
    enabled: bool


@dataclass(frozen=True)
class WorldConfig:
    device: Device
    backend: Backend
    timeout_s: float = _limited(1)


@dataclass(frozen=True)
class DataConfig:
    train: Node
    eval: Node | None
    augment: Node | None
    workers: int = _limited(0)
    prefetch: int = _limited(1)


@dataclass(frozen=True)
class ParallelConfig:
    bucket_mb: float | None = _limited(0, above=True)
    static_graph: bool = field()
    find_unused: bool = field()
    sync_batchnorm: bool = field()
    comm_hook: CommHook = field()
    powersgd_rank: int = _limited(1)
    powersgd_start: int = _limited(2)


@dataclass(frozen=True)
class ClusterConfig:
    partition: str | None
    account: str | None
    qos: str | None
    nodes: int = _limited(1)
    ranks_per_node: int | None = _limited(1)
    gpus_per_node: int | None = _limited(0)
    cpus_per_task: int | None = _limited(1)
    mem: str | None = field()
    time: str | None = field()
    constraint: str | None = field()
    container: str | None = field()
    setup: list[str] = field()


@dataclass(frozen=True)
class Config:
    run: RunConfig
    seed: int = _limited(0, 2**63 - 1)
    train: TrainConfig = field()
    eval: EvalConfig = field()
    checkpoint: CheckpointConfig = field()
    log: LogConfig = field()
    wandb: WandbConfig = field()
    tensorboard: TensorboardConfig = field()
    world: WorldConfig = field()
    model: Node = field()
    data: DataConfig = field()
    task: Node = field()
    optim: Node = field()
    schedule: Node = field()
    parallel: ParallelConfig = field()
    cluster: ClusterConfig = field()


def check(config: Config, ranks: int) -> None:
    """Everything the config alone decides about a world of `ranks`. Raises ConfigError."""
    for message in _out_of_range(config, ""):
        raise ConfigError(message)
    _check_name(config.run)
    _check_batch(config.train, config.parallel, ranks)
    train = config.train
    if train.steps is None and train.epochs is None:
        raise ConfigError("Neither train.steps nor train.epochs is set, so the run has no end. Type train.epochs=10")
    if isinstance(train.threads, str) and train.threads != "auto":
        raise ConfigError(f"train.threads={train.threads} is neither a number nor auto. Type train.threads=auto")
    if train.init_from is not None and train.extend_from is not None:
        raise ConfigError("train.init_from and train.extend_from are both set: a run begins from one of them. Drop one")
    if config.checkpoint.asynchronous:
        raise ConfigError("checkpoint.asynchronous=true is not built yet. Type checkpoint.asynchronous=false")
    if config.world.device is Device.cpu and config.world.backend is Backend.nccl:
        raise ConfigError("world.backend=nccl needs GPUs, and world.device=cpu is set. Type world.backend=gloo")


def _out_of_range(node: Any, path: str) -> Iterator[str]:
    """One message for every number outside its limits; in free-form groups for every number that is not finite."""
    if is_dataclass(node):
        for entry in fields(node):
            value, name = getattr(node, entry.name), f"{path}{entry.name}"
            if isinstance(value, bool | str) or value is None:
                continue
            if "low" in entry.metadata and not _within(value, **entry.metadata):
                yield f"{name}={value} is out of range. It must be {_range(**entry.metadata)}"
            yield from _out_of_range(value, f"{name}.")
    elif isinstance(node, dict):
        for key, value in node.items():
            if isinstance(value, float) and not math.isfinite(value):
                yield f"{path}{key}={value} is not a finite number. Type a finite one"
            yield from _out_of_range(value, f"{path}{key}.")


def _within(value: float, low: float, high: float, above: bool) -> bool:
    return math.isfinite(value) and (low < value if above else low <= value) and value <= high


def _range(low: float, high: float, above: bool) -> str:
    lower = f"more than {low}" if above else f"at least {low}"
    return lower if high == math.inf else f"{lower} and at most {high}"


def _check_name(run: RunConfig) -> None:
    name = run.name
    if name is not None and (not name.strip() or name.startswith(".") or "/" in name or not name.isprintable()):
        raise ConfigError(
            f"run.name={name!r} cannot be a folder's name: it must not be empty, begin with a dot, or hold a slash or "
            "control characters. Type run.name=my-run"
        )
    if not run.root.strip() or not run.root.isprintable():
        raise ConfigError(f"run.root={run.root!r} is empty or holds control characters. Type run.root=runs")


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
            f"train.global_batch={batch} in micro-batches of {micro} makes {batch // micro}, too few for {ranks} ranks. "
            f"Type train.micro_batch={max(1, batch // ranks)}, or start at most {batch // micro} ranks"
        )
    if parallel.sync_batchnorm and (batch // micro if micro else batch) % ranks:
        raise ConfigError(
            f"parallel.sync_batchnorm needs equal shares, and train.global_batch={batch} does not split evenly over "
            f"{ranks} ranks. Type train.global_batch={math.ceil(batch / ranks) * ranks}"
        )

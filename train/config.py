"""The schema of a run: names, types and limits. Every default stands in conf/, none here."""

import dataclasses
import math
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

Node = dict[str, Any]


def _limited(low: float, high: float = math.inf, *, above: bool = False) -> Any:
    """A number within [low, high], or (low, high] where `above`."""
    return field(metadata={"low": low, "high": high, "above": above})


class Auto(Enum):
    auto = "auto"


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


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    root: str
    name: str | None
    fresh: bool
    accept: Accept | None
    trust: list[str]


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    steps: int | None = _limited(1)
    epochs: float | None = _limited(0, above=True)
    global_batch: int = _limited(1)
    micro_batch: int | None = _limited(1)
    precision: PrecisionName
    channels_last: bool
    compile: bool
    clip_norm: float | None = _limited(0, above=True)
    ema_decay: float | None = _limited(0, 1)
    deterministic: bool
    threads: int | Auto = _limited(1)  # noqa: RUF009 - a field, as the others
    max_skips: int = _limited(1)
    init_from: str | None
    extend_from: str | None


@dataclass(frozen=True, kw_only=True)
class EvalConfig:
    every: int | None = _limited(1)
    batch: int = _limited(1)


@dataclass(frozen=True, kw_only=True)
class CheckpointConfig:
    every: int | None = _limited(1)
    every_s: float | None = _limited(0, above=True)
    keep: int = _limited(1)
    best_metric: str | None
    best_mode: Mode | None
    asynchronous: bool


@dataclass(frozen=True, kw_only=True)
class LogConfig:
    every: int = _limited(1)


@dataclass(frozen=True, kw_only=True)
class WandbConfig:
    mode: WandbMode
    project: str
    entity: str | None
    group: str | None
    tags: list[str]
    finish_timeout_s: float = _limited(0, 30)


@dataclass(frozen=True, kw_only=True)
class TensorboardConfig:
    enabled: bool


@dataclass(frozen=True, kw_only=True)
class WorldConfig:
    device: Device
    backend: Backend
    timeout_s: float = _limited(1)


@dataclass(frozen=True, kw_only=True)
class StopConfig:
    grace_s: float | None = _limited(0, above=True)


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    train: Node
    eval: Node | None
    augment: Node | None
    workers: int = _limited(0)
    prefetch: int = _limited(1)


@dataclass(frozen=True, kw_only=True)
class ParallelConfig:
    bucket_mb: float | None = _limited(0, above=True)
    static_graph: bool
    find_unused: bool
    sync_batchnorm: bool
    comm_hook: CommHook
    powersgd_rank: int = _limited(1)
    powersgd_start: int = _limited(2)


@dataclass(frozen=True, kw_only=True)
class ClusterConfig:
    partition: str | None
    account: str | None
    qos: str | None
    nodes: int = _limited(1)
    ranks_per_node: int | None = _limited(1)
    gpus_per_node: int | None = _limited(0)
    cpus_per_task: int | None = _limited(1)
    mem: str | None
    time: str | None
    constraint: str | None
    container: str | None
    mounts: list[str]
    setup: list[str]
    mail: str | None
    notice_s: int = _limited(30, 65535)  # the field that sbatch keeps it in has 16 bits
    max_requeues: int = _limited(0)
    max_failures: int = _limited(0)


class SamplerName(Enum):
    tpe = "tpe"
    random = "random"
    grid = "grid"


class PrunerName(Enum):
    none = "none"
    asha = "asha"
    median = "median"
    hyperband = "hyperband"


@dataclass(frozen=True, kw_only=True)
class PrunerConfig:
    name: PrunerName
    first_step: int | None = _limited(1)
    eta: int = _limited(2)
    after_trials: int = _limited(0)


@dataclass(frozen=True, kw_only=True)
class SweepConfig:
    sampler: SamplerName
    trials: int | None = _limited(1)
    ranks: int = _limited(1)
    slots: int | None = _limited(1)
    per_gpu: int = _limited(1)
    metric: str | None
    mode: Mode | None
    seed: int = _limited(0, 2**31 - 1)
    seeds: int = _limited(1)
    storage: str | None
    max_failures: int = _limited(0)
    pruner: PrunerConfig


@dataclass(frozen=True, kw_only=True)
class Config:
    run: RunConfig
    seed: int = _limited(0, 2**63 - 1)
    train: TrainConfig
    eval: EvalConfig
    checkpoint: CheckpointConfig
    log: LogConfig
    wandb: WandbConfig
    tensorboard: TensorboardConfig
    world: WorldConfig
    stop: StopConfig
    model: Node
    data: DataConfig
    task: Node
    optim: Node
    schedule: Node
    parallel: ParallelConfig
    cluster: ClusterConfig
    sweep: SweepConfig


def as_plain(config: Config) -> dict[str, Any]:
    """The config as nested dicts and lists of plain values, as resolved.yaml holds it."""
    plain = _plain(dataclasses.asdict(config))
    assert isinstance(plain, dict)
    return plain


def _plain(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value

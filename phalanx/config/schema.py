"""The schema of the config: names, types, limits, and how a key affects the result. Defaults are in conf/ only."""

import dataclasses
import functools
import math
import operator
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, is_dataclass
from enum import Enum
from types import MappingProxyType
from typing import Any

Node = dict[str, Any]


class Kind(Enum):
    """How a key affects the weights; each leaf of the config has one kind."""

    defining = "another run: the digest has it, so another value is another name"
    rounding = "the same run up to the order of additions: within 1e-9 in fp64"
    inert = "the same bits"


class Neutral(Enum):
    """There is no neutral value: the key has been there from the first version on."""

    none = "none"


@dataclass(frozen=True)
class Leaf:
    """Metadata of a key beside its type.

    A number lies in [low, high], or (low, high] with `above`. `neutral` is the meaning of configs from before the key: a
    stored config without the key gets it, and a digest leaves the key out if it holds it. `own` are keys of ours within an
    open node, each with the value that means as much as its absence, which a digest leaves out, too.
    """

    kind: Kind
    low: float | None
    high: float
    above: bool
    neutral: Any
    own: Mapping[str, Any]


NOTHING: Mapping[str, Any] = MappingProxyType({})


def _leaf(kind: Kind) -> Any:
    def declare(
        low: float | None = None,
        high: float = math.inf,
        *,
        above: bool = False,
        neutral: Any = Neutral.none,
        own: Mapping[str, Any] = NOTHING,
    ) -> Any:
        return field(metadata={"leaf": Leaf(kind, low, high, above, neutral, own)})

    return declare


_defining, _rounding, _inert = _leaf(Kind.defining), _leaf(Kind.rounding), _leaf(Kind.inert)


class Auto(Enum):
    auto = "auto"


class PrecisionName(Enum):
    auto = "auto"
    fp32 = "fp32"
    tf32 = "tf32"
    bf16 = "bf16"
    bf16_pure = "bf16_pure"
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
    root: str = _inert()
    name: str | None = _inert()
    fresh: bool = _inert()
    accept: Accept | None = _inert()
    trust: list[str] = _inert()
    imports: list[str] = _inert(neutral=[])


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    steps: int | None = _defining(1)
    epochs: float | None = _defining(0, above=True)
    global_batch: int = _defining(1)
    micro_batch: int | None = _defining(1)
    precision: PrecisionName = _defining()
    channels_last: bool = _rounding()
    compile: bool = _rounding()
    clip_norm: float | None = _defining(0, above=True)
    ema_decay: float | None = _defining(0, 1)
    average_last: int | None = _defining(2, neutral=None)
    deterministic: bool = _rounding()
    threads: int | Auto = _rounding(1)
    max_skips: int = _inert(1)
    init_from: str | None = _defining()
    init_strip: str | None = _defining(neutral=None)
    init_rename: list[list[str]] | dict[str, str] | None = _defining(neutral=None)
    init_skip: str | list[str] | None = _defining(neutral=None)
    extend_from: str | None = _defining()
    time_limit: str | None = _defining(neutral=None)
    checkpoint_activations: int | str | None = _rounding()
    freeze: list[Node] = _defining(neutral=[])  # train/freezing/rules.py reads them


@dataclass(frozen=True, kw_only=True)
class EvalConfig:
    every: int | None = _inert(1)
    every_epochs: float | None = _inert(0, above=True)
    first: bool = _inert()
    batch: int = _inert(1)
    batches: int | None = _inert(1)
    predictions: int = _inert(0)


@dataclass(frozen=True, kw_only=True)
class EarlyStopConfig:
    metric: str | None = _defining(neutral=None)
    mode: Mode | None = _defining(neutral=None)
    patience: int = _defining(1, neutral=5)
    min_delta: float = _defining(0, neutral=0.0)


@dataclass(frozen=True, kw_only=True)
class CheckpointConfig:
    every: int | None = _inert(1)  # defining where train.average_last is set
    every_s: float | None = _inert(0, above=True)
    keep: int = _inert(1)
    keep_best: int = _inert(1)
    keep_every: int | None = _inert(1)
    best_metric: str | None = _inert()
    best_mode: Mode | None = _inert()


@dataclass(frozen=True, kw_only=True)
class LogConfig:
    every: int = _inert(1)
    shown: int = _inert(0)
    keep_shown: int = _inert(1)


@dataclass(frozen=True, kw_only=True)
class WandbConfig:
    mode: WandbMode = _inert()
    project: str | None = _inert()
    entity: str | None = _inert()
    group: str | None = _inert()
    tags: list[str] = _inert()
    finish_timeout_s: float = _inert(0, 30)


@dataclass(frozen=True, kw_only=True)
class TensorboardConfig:
    enabled: bool = _inert()


@dataclass(frozen=True, kw_only=True)
class MlflowConfig:
    enabled: bool = _inert()
    uri: str | None = _inert()
    experiment: str | None = _inert()


@dataclass(frozen=True, kw_only=True)
class TrackioConfig:
    enabled: bool = _inert()
    project: str | None = _inert()


@dataclass(frozen=True, kw_only=True)
class WorldConfig:
    device: Device = _rounding()
    backend: Backend = _rounding()
    timeout_s: float = _inert(1)


@dataclass(frozen=True, kw_only=True)
class StopConfig:
    grace_s: float | None = _inert(0, above=True)


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    train: Node = _defining()
    eval: Node | None = _defining()
    test: Node | None = _defining(neutral=None)
    augment: Node | None = _defining()
    collate: Node | None = _defining(neutral=None)
    sampler: Node | None = _defining(neutral=None)
    drop_last: bool = _defining(neutral=False)
    cache: str | None = _inert(neutral=None)
    workers: int = _inert(0)
    prefetch: int = _inert(1)


@dataclass(frozen=True, kw_only=True)
class ParallelConfig:
    _target_: str = _defining(neutral="phalanx.parallel.DDPStrategy")
    bucket_mb: float | None = _rounding(0, above=True)
    static_graph: bool = _rounding()
    find_unused: bool = _defining(neutral=False)  # a gradient that is absent moves no momentum, one of zero does
    sync_batchnorm: bool = _defining()
    broadcast_buffers: bool = _defining(neutral=False)
    comm_hook: CommHook = _defining()
    powersgd_rank: int = _defining(1)
    powersgd_start: int = _defining(2)
    args: Node = _defining(neutral={})  # what a strategy takes besides, as keyword arguments


@dataclass(frozen=True, kw_only=True)
class ClusterConfig:
    partition: str | None = _inert()
    account: str | None = _inert()
    qos: str | None = _inert()
    nodes: int = _inert(1)
    ranks_per_node: int | None = _inert(1)
    gpus_per_node: int | None = _inert(0)
    cpus_per_task: int | None = _inert(1)
    mem: str | None = _inert()
    time: str | None = _inert()
    constraint: str | None = _inert()
    container: str | None = _inert()
    mounts: list[str] = _inert()
    setup: list[str] = _inert()
    mail: str | None = _inert()
    sbatch: list[str] = _inert()
    notice_s: int = _inert(30, 65535)  # the field that sbatch keeps it in has 16 bits
    max_requeues: int = _inert(0)
    max_failures: int = _inert(0)


class SamplerName(Enum):
    tpe = "tpe"
    random = "random"
    grid = "grid"


@dataclass(frozen=True, kw_only=True)
class NoPruner:
    name: str = _inert()


@dataclass(frozen=True, kw_only=True)
class AshaConfig:
    name: str = _inert()
    first_step: int | None = _inert(1)
    eta: int = _inert(2)


@dataclass(frozen=True, kw_only=True)
class MedianConfig:
    name: str = _inert()
    first_step: int | None = _inert(1)
    after_trials: int = _inert(0)


@dataclass(frozen=True, kw_only=True)
class HyperbandConfig:
    name: str = _inert()
    first_step: int | None = _inert(1)
    eta: int = _inert(2)


PrunerConfig = NoPruner | AshaConfig | MedianConfig | HyperbandConfig


@dataclass(frozen=True, kw_only=True)
class SweepConfig:
    sampler: SamplerName = _inert()
    trials: int | None = _inert(1)
    ranks: int = _inert(1)
    slots: int | None = _inert(1)
    per_gpu: int = _inert(1)
    metric: str | None = _inert()
    mode: Mode | None = _inert()
    seed: int = _inert(0, 2**31 - 1)
    seeds: int = _inert(1)
    storage: str | None = _inert()
    max_failures: int = _inert(0)
    pruner: Node = _inert()  # one of PrunerConfig, by its name; launch/search/pruners.py reads it


@dataclass(frozen=True, kw_only=True)
class Config:
    run: RunConfig
    seed: int = _defining(0, 2**63 - 1)
    train: TrainConfig
    eval: EvalConfig
    early_stop: EarlyStopConfig
    checkpoint: CheckpointConfig
    log: LogConfig
    wandb: WandbConfig
    tensorboard: TensorboardConfig
    mlflow: MlflowConfig
    trackio: TrackioConfig
    sinks: Node = _inert()  # a Sink of the user's own under each name
    world: WorldConfig
    stop: StopConfig
    model: Node = _defining()
    data: DataConfig
    task: Node = _defining()
    optim: Node = _defining(own={"groups": [], "layer_decay": None})
    schedule: Node = _defining()
    parallel: ParallelConfig
    cluster: ClusterConfig
    sweep: SweepConfig


def schema(section: type = Config, path: str = "") -> dict[str, Leaf]:
    """The Leaf of every key of the config, by dotted key."""
    hints = typing.get_type_hints(section)
    found: dict[str, Leaf] = {}
    for entry in dataclasses.fields(section):
        inner, key = hints[entry.name], f"{path}{entry.name}"
        found |= schema(inner, f"{key}.") if is_dataclass(inner) else {key: entry.metadata["leaf"]}  # type: ignore[arg-type]
    return found


def part(config: Config, keep: Callable[[Leaf, Any], bool]) -> dict[str, Any]:
    """The leaves for which `keep(leaf, value)` is true, nested as in `as_plain`, less keys of ours that mean nothing."""
    kept: dict[str, Any] = {}
    for key, leaf in schema().items():
        *sections, name = key.split(".")
        value = _plain(operator.attrgetter(key)(config))
        if leaf.own:
            value = {name: item for name, item in value.items() if name not in leaf.own or item != leaf.own[name]}
        if keep(leaf, value):
            functools.reduce(lambda node, section: node.setdefault(section, {}), sections, kept)[name] = value
    return kept


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

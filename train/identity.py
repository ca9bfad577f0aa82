"""A run is its config: the digest of what defines the result."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

from train.config import Config, as_plain
from train.redact import REDACTED, redact

# How a run is watched, saved, spread and named does not change what it trains.
_APART = ("run", "log", "wandb", "tensorboard", "world", "stop", "cluster", "checkpoint", "eval", "sweep")
_APART_KEYS = {
    "train": ("compile", "channels_last", "deterministic", "threads"),
    "data": ("workers", "prefetch"),
    "parallel": ("bucket_mb", "static_graph", "find_unused"),  # its hooks and SyncBatchNorm are other maths
}


def defining(config: Config) -> dict[str, Any]:
    """The part of a config that defines the result, as plain data without secrets."""
    whole = as_plain(config)
    kept = {name: value for name, value in whole.items() if name not in _APART}
    for section, names in _APART_KEYS.items():
        kept[section] = {name: value for name, value in kept[section].items() if name not in names}
    redacted = redact(kept)
    assert isinstance(redacted, dict)
    return redacted


def digest(config: Config) -> str:
    """SHA-256 in hex over the defining part, independent of the order in which keys were written."""
    return hashlib.sha256(json.dumps(defining(config), sort_keys=True).encode()).hexdigest()


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Lines such as "optim.lr: 0.001 -> 0.01" for what two defining parts disagree on.

    What was stored redacted agrees with anything: a secret is nobody's identity.
    """
    old, new = dict(leaves(before)), dict(leaves(now))
    absent = "(absent)"
    pairs = {key: (old.get(key, absent), new.get(key, absent)) for key in sorted(old.keys() | new.keys())}
    return [f"{key}: {was} -> {is_now}" for key, (was, is_now) in pairs.items() if was not in (is_now, REDACTED)]


def leaves(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """The dotted key and the value of all that is no mapping in nested mappings."""
    if isinstance(node, Mapping) and node:
        for key, value in node.items():
            yield from leaves(value, f"{path}.{key}" if path else str(key))
    else:
        yield path, node

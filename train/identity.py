"""A run is its config: the digest of what defines the result."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

from train.config import Config, Kind, as_plain, schema
from train.redact import REDACTED, redact


def defining(config: Config) -> dict[str, Any]:
    """The part of a config that defines the result, as plain data without secrets."""
    kept: dict[str, Any] = {}
    whole = as_plain(config)
    for key, leaf in schema().items():
        if leaf.kind is Kind.defining:
            section, _, name = key.rpartition(".")
            (kept.setdefault(section, {}) if section else kept)[name] = (whole[section] if section else whole)[name]
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

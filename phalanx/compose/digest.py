"""The digest of a config: SHA-256 over the keys that define the result."""

import hashlib
import re
from collections.abc import Iterator, Mapping
from typing import Any

from ..common.escaping import OPEN
from ..common.redaction import REDACTED, redact
from ..config.metric_direction import steering
from ..config.schema import Config, Kind, Leaf, Neutral, part
from .canonical import canonical, text


def defining(config: Config) -> dict[str, Any]:
    """The part of a config that defines the result, as plain data in its canonical form. It may hold secrets.

    A key with its neutral value is left out, so that adding the key to the schema renames no run. Where a metric of
    evaluations steers the training, the section `eval` is part of it, and where checkpoints are averaged, which they are.
    """
    kept = part(config, _defines)
    if steering(config):
        kept |= {name: section for name, section in part(config, _is_set).items() if name == "eval"}
    if config.train.average_last is not None:
        kept["checkpoint"] = {"every": config.checkpoint.every}
    found: dict[str, Any] = canonical(kept)
    return found


def digest(config: Config) -> str:
    """SHA-256 in hex over the defining part, independent of how it was spelt and of the order of its keys."""
    return hashlib.sha256(text(defining(config)).encode()).hexdigest()


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Lines such as "optim.lr: 0.001 -> 0.01", without secrets, for what two defining parts disagree on."""
    return list(differing(before, now).values())


def differing(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, str]:
    """The keys that two defining parts disagree on, each with a line on it.

    A redacted stored value agrees with anything.
    """
    old, new = dict(leaves(before)), dict(leaves(now))
    absent = "(absent)"
    pairs = {key: (old.get(key, absent), new.get(key, absent)) for key in sorted(old.keys() | new.keys())}
    others = {key: pair for key, pair in pairs.items() if not _agree(*pair)}
    shown = {key: redact({key.rpartition(".")[2]: pair}) for key, pair in others.items()}
    return {key: f"{key}: {was} -> {now}" for key, pair in shown.items() for was, now in pair.values()}


def _defines(leaf: Leaf, value: Any) -> bool:
    return leaf.kind is Kind.defining and _is_set(leaf, value)


def _is_set(leaf: Leaf, value: Any) -> bool:
    """Whether it is other than neutral."""
    return leaf.neutral is Neutral.none or text(canonical(value)) != text(canonical(leaf.neutral))


def _agree(was: Any, now: Any) -> bool:
    if not isinstance(was, str) or REDACTED not in was:
        return text(was) == text(now)
    shown = ".*".join(re.escape(part) for part in was.split(REDACTED))
    return isinstance(now, str) and re.fullmatch(shown, now, re.DOTALL) is not None


def leaves(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted key and value of every leaf of nested mappings."""
    if isinstance(node, Mapping) and node:
        for key, value in node.items():
            yield from leaves(value, f"{path}.{key}" if path else str(key))
    else:
        yield path, node


def deferred_keys(node: Any) -> dict[str, str]:
    """The leaves with an environment variable left unresolved by `deferred_env`, by dotted key."""
    return {key: value for key, value in leaves(node) if isinstance(value, str) and OPEN in value}

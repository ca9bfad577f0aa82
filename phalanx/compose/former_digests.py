"""Digests as earlier versions computed them, so that their runs are found and continued in their folders."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from ..common.redaction import REDACTED, names_a_secret, redact
from ..config.moved_names import old_name
from ..config.schema import Config, Kind, Neutral, part


def former_digests(config: Config) -> list[str]:
    """SHA-256 in hex over each of the `former_definings`."""
    texts = (json.dumps(kept, sort_keys=True) for kept in former_definings(config))
    return [hashlib.sha256(text.encode()).hexdigest() for text in texts]


def former_definings(config: Config) -> list[dict[str, Any]]:
    """The defining part as earlier versions computed it, redacted by the words in its keys.

    The last one is of the first versions, which left out the section `parallel`.
    """
    kept = part(config, lambda leaf, _: leaf.kind is Kind.defining and leaf.neutral is Neutral.none)
    kept["train"]["max_skips"] = config.train.max_skips
    without = {name: section for name, section in kept.items() if name != "parallel"}
    return [redact(_hidden(_named(part), False)) for part in (kept, without)]


def _named(value: Any) -> Any:
    """With our classes by their old names."""
    if isinstance(value, Mapping):
        return {
            name: old_name(item) if name == "_target_" and isinstance(item, str) else _named(item)
            for name, item in value.items()
        }
    return [_named(item) for item in value] if isinstance(value, list) else value


def _hidden(value: Any, hidden: bool) -> Any:
    """Earlier versions redacted every string below a key with a word such as `token`."""
    if isinstance(value, Mapping):
        return {name: _hidden(item, hidden or names_a_secret(name)) for name, item in value.items()}
    if isinstance(value, list):
        return [_hidden(item, hidden) for item in value]
    return REDACTED if hidden and isinstance(value, str) and value else value

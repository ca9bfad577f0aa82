"""Parse and quote overrides (key=value) as they were typed."""

import re
from collections.abc import Collection, Sequence
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException

from ..common.escaping import escape

_WORD = re.compile(r"(?P<sign>\+{0,2}|~)(?P<key>[^=@+~]*)(?P<package>@[^=]*)?(?:=(?P<value>.*))?", re.DOTALL)


def key(word: str) -> str:
    """The key that `word` is about."""
    found = _WORD.fullmatch(word)
    return found["key"] if found else word.partition("=")[0]


def value(word: str) -> str | None:
    """The text after the first =, or None where there is none."""
    _, equals, text = word.partition("=")
    return text if equals else None


def typed_for(wanted: str, words: Sequence[str]) -> str | None:
    """The text typed last for the key `wanted`, or None where none was."""
    texts = [value(word) for word in words if key(word) == wanted]
    return texts[-1] if texts else None


def quoted(text: str) -> str:
    """`text` quoted for Hydra's grammar, so that it is taken literally."""
    mark = "'" if '"' in text and "'" not in text else '"'
    body = re.sub(rf"(\\*){mark}", rf"\1\1\\{mark}", escape(text))  # backslashes count before a quote only
    trailing = len(body) - len(body.rstrip("\\"))
    return mark + body + "\\" * trailing + mark


def shown(value: object) -> str:
    """A value as it is written in YAML and typed in an override: null, true, [1, 2], {a: 1}."""
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(shown, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{shown(name)}: {shown(child)}' for name, child in value.items())}}}"
    return str(value)


def verbatim(words: Sequence[str], texts: Collection[str]) -> list[str]:
    """The words with numbers quoted for the keys `texts`: Hydra would read run.name=1e3 as 1000.0."""
    parser = OverridesParser.create()
    return [_quote_number(parser, word) if key(word) in texts else word for word in words]


def _quote_number(parser: OverridesParser, word: str) -> str:
    try:
        read = parser.parse_override(word).value()
    except HydraException:
        return word
    name, _, text = word.partition("=")
    return f"{name}={quoted(text)}" if isinstance(read, bool | int | float) else word


def with_own_names(words: Sequence[str]) -> list[str]:
    """The words with ++ for what stands under a name that the user gives, of which no default can know: sinks.mine=…"""
    return [f"++{word}" if key(word).startswith("sinks.") and word[:1] not in "+~" else word for word in words]


def nodes_apart(words: Sequence[str]) -> tuple[list[str], list[Override]]:
    """The other words, and those of nodes typed as a whole with the words of their keys: optim={_target_:…}, optim.lr=1."""
    parser = OverridesParser.create()
    nodes = {key(word) for word in words if _is_node(word, parser)}
    apart = [any(key(word).startswith(f"{node}.") for node in nodes) or _is_node(word, parser) for word in words]
    if not nodes:
        return list(words), []
    others = [word for word, its in zip(words, apart, strict=True) if not its]
    try:
        return others, [parser.parse_override(word) for word, its in zip(words, apart, strict=True) if its]
    except HydraException:  # who gets the words tells which of them
        return list(words), []


def node_of(override: Override) -> dict[Any, Any] | None:
    """The dict of a word that sets one, and not those of `parallel`, whose keys all strategies have."""
    value, name = override.value(), override.key_or_group
    apart = override.package is not None or override.is_delete() or name in ("", "parallel")
    return value if isinstance(value, dict) and not apart else None


def _is_node(word: str, parser: OverridesParser) -> bool:
    try:
        return "_target_" in word and node_of(parser.parse_override(word)) is not None
    except HydraException:
        return False

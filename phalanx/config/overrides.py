"""Parse and quote overrides (key=value) as they were typed."""

import re
from collections.abc import Collection, Sequence

from hydra.core.override_parser.overrides_parser import OverridesParser
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

"""Error messages for sweep overrides that Hydra's grammar does not take: choice, range, interval, tag."""

import re
import shlex
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from phalanx.common.suggest import nearest
from phalanx.config.overrides import key, value
from phalanx.exit.codes import ConfigError

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override

LOG = "log"  # the one tag that means something
_USES = {
    "choice": "choice(a,b)",
    "range": "range(1,5)",
    "interval": "interval(1e-4,1e-1)",
    "tag": "tag(log,interval(1e-4,1e-1))",
    "glob": "glob(*)",
    "int": "int(interval(1,8))",
    "shuffle": "shuffle(a,b)",
    "sort": "sort(a,b)",
}
_MEANT = {
    "loguniform": "tag",
    LOG: "tag",
    "uniform": "interval",
    "randint": "int",
    "grid": "choice",
    "linspace": "choice",
}
_CALL = re.compile(r"\s*(?P<function>\w+)\s*[(\[]")


def check_readable(word: str, error: Exception) -> None:
    """Raise ConfigError for a word that Hydra cannot read, where it looks as if it were to name several values."""
    name, text = key(word), (value(word) or "").strip()
    if text.endswith(","):
        raise ConfigError(
            f"{word} ends with a comma, and a space ends a word of the command line. Type all values without spaces, as "
            f"{name}=1,2, or in quotes, as {shlex.quote(f'{name}=1, 2')}"
        )
    if text[:1] in "({" and "," in text:
        raise ConfigError(f"{word} cannot be read: commas alone part values. Type {name}={text.strip('(){} ')}")
    called = _CALL.match(text)
    if called is None:
        return  # composing says what is wrong with it
    function = called["function"]
    if function not in _USES:
        meant = _MEANT.get(function)
        hint = nearest(function, list(_USES)) if meant is None else ""
        example = _USES[meant or "choice"]
        raise ConfigError(f"{word}: there is no {function}(…). {hint}Type {_quoted(name, example)}")
    if text.count("(") != text.count(")"):
        raise ConfigError(f"{word} does not close each bracket that it opens. Type {_quoted(name, _USES[function])}")
    reason = " ".join(str(error).split()).removesuffix(".")
    raise ConfigError(f"{word} cannot be read: {reason}. Type {_quoted(name, _USES[function])}")


def check_tags(override: "Override", tags: Collection[str], is_interval: bool) -> None:
    """Raise ConfigError for tags that would change nothing."""
    name, word = override.get_key_element(), override.input_line
    for tag in sorted(set(tags) - {LOG}):
        raise ConfigError(f"{word}: {tag} is no tag, the one there is is {LOG}. Type {_quoted(name, _USES['tag'])}")
    if tags and not is_interval:
        raise ConfigError(f"{word}: {LOG} is for an interval, and these are single values. Type {name}= and the values")


def nothing_swept(words: Sequence[str]) -> ConfigError:
    """For a command line that names one point."""
    lists = [word for word in words if (value(word) or "").startswith("[") and "," in word]
    told = f"{lists[0]} is one value, a list. " if lists else ""
    example = f"{key(lists[0])}={(value(lists[0]) or '').strip('[] ')}" if lists else "optim.lr=1e-3,3e-3"
    return ConfigError(
        f"Nothing is swept: no word names several values. {told}Type one that does, such as {shlex.quote(example)} or "
        "'optim.lr=tag(log,interval(1e-4,1e-1))'"
    )


def _quoted(name: str, example: str) -> str:
    return shlex.quote(f"{name}={example}")

"""Find the override that keeps Hydra from composing, and explain the error."""

import re
import shlex
from collections.abc import Iterator, Sequence
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, MissingConfigException
from omegaconf.errors import OmegaConfBaseException, UnsupportedInterpolationType

from ..common.suggest import nearest
from ..config.check import unknown_key_message
from ..config.overrides import key, quoted, value
from .hydra_api import NOT_COMPOSED, Composer, Composition

_NODES = ("model", "task", "optim", "schedule")  # groups whose options are a class and its arguments


def explain(error: Exception, words: Sequence[str], composer: Composer) -> str:
    """One message for why `composer` raised `error` over `words`."""
    if isinstance(error, UnsupportedInterpolationType):
        return (
            f"{error.full_key} looks up what no resolver is registered for: {_flat(error)}. Type run.imports=[module] with "
            "the module of yours that registers it"
        )
    ordered = sorted(words, key=lambda word: (not word.startswith("hydra."), "." in key(word)))  # groups bring keys
    composer = _cached(composer)
    if _compose_error(ordered, composer) is None:  # it is their order: optim.lr=0.1 ~optim +optim={…}
        ordered = list(words)
    good = _longest_good(ordered, str(error), composer)
    if good is not None:
        return _blame(ordered[good], ordered[:good], composer)
    if isinstance(error, MissingConfigException):
        return f"{_flat(error)}. Type --config-dir=FOLDER and --config-name=NAME for a NAME.yaml in FOLDER"
    where = getattr(error, "full_key", None)
    if where:
        where = str(where).partition("[")[0]
        return f"The config does not compose: {where}: {_flat(error)}. Type {where}=… with its value, or mend the file"
    return f"The config does not compose: {_flat(error)}"


def _cached(composer: Composer) -> Composer:
    """The composer with a cache by words: each call takes 0.1 s."""
    known: dict[tuple[str, ...], Composition | Exception] = {}

    def remembering(words: Sequence[str], *, resolve: bool = True) -> Composition:
        assert resolve
        found = known.get(tuple(words))
        if found is None:
            try:
                found = composer(words)
            except NOT_COMPOSED as error:
                found = error
            known[tuple(words)] = found
        if isinstance(found, Exception):
            raise found
        return found

    return remembering


def _longest_good(words: Sequence[str], told: str, composer: Composer) -> int | None:
    """How many of the first words compose, by bisection; None if not even the config without overrides does.

    If Hydra's message `told` names a key, the position of that word is tried first.
    """
    named = next((i for i, word in enumerate(words) if key(word) and key(word) in told), len(words))
    good, bad = -1, len(words)
    while bad - good > 1:
        middle = next((n for n in (named, named + 1) if good < n < bad), (good + bad) // 2)
        good, bad = (middle, bad) if _compose_error(words[:middle], composer) is None else (good, middle)
    return None if good < 0 else good


def _compose_error(words: Sequence[str], composer: Composer) -> Exception | None:
    try:
        composer(words)
    except NOT_COMPOSED as error:
        return error
    return None


def _blame(word: str, before: Sequence[str], composer: Composer) -> str:
    """The message for `word`, given that the words before it compose."""
    try:
        override = OverridesParser.create().parse_override(word)
    except HydraException as unread:
        return _unreadable(word, unread)
    name, found = override.key_or_group, composer(before)
    inside = [each for each in before if key(each).startswith(f"{name}.")]
    if override.is_delete() and inside:
        return f"{word} takes out what {inside[-1]} sets a key of. Leave one of the two out"
    known = _known(found)
    if not name:
        return f"{word!r} has no key before the equals sign. Type a key and a value, such as train.steps=100"
    if name in found.choices and not (isinstance(override.value(), dict) and name in found.plain):
        there = options(name, before, composer)
        if value(word) in there:  # it is there, and what it needs is not
            trouble = re.sub(r" *Config search path: .*", "", _flat(_compose_error([*before, word], composer)))
            if f"@{name}." in trouble:  # the keys of the file were to stand below its group
                return f"{word} does not compose: {trouble}. Begin that file with the line: # @package _global_"
            return f"{word} does not compose: {trouble}. Mend the defaults list of that file"
        return _no_option(word, name, there)
    if override.is_sweep_override():
        return _several(override)
    if name not in known and name != "hydra.searchpath" and not override.is_add() and not override.is_force_add():
        return _unknown(override, known)
    if override.is_add() and name in known:
        return f"{name} is in the config already, so {word} cannot add it. Type {word.lstrip('+')}"
    if override.is_delete():
        return f"{word} cannot delete what is null or not there. Type {name}=null to unset it, or leave it out"
    if not override.is_add() and isinstance(typed := override.value(), dict):
        lacking = next((str(each) for each in typed if f"{name}.{each}" not in known), None)
        if lacking is not None:
            return _lacking(override, lacking, known)
    return f"{word} cannot be used: {_flat(_compose_error([*before, word], composer))}. Type another value for {name}"


def _unreadable(word: str, error: Exception) -> str:
    text = value(word)
    if text is None:
        return f"{word!r} is no key=value. Type a key, an equals sign and a value, such as train.steps=100"
    if re.search(r"\s", key(word).strip()) is None and key(word) != key(word).strip():
        return f"{word!r} has blanks around its equals sign. Type {shlex.quote(f'{key(word).strip()}={text.strip()}')}"
    if not re.fullmatch(r"[\w/-]+(\.[\w/-]+)*", key(word)):
        return f"{word!r} begins with no key that can be read: {_flat(error)}. Type keys as train.steps=100"
    if text[:1] in "[{(":
        return (
            f"{word} cannot be read: {_flat(error)}. Type a list as {key(word)}=[a,b], a group as {key(word)}={{a:1}}"
        )
    example = f"{key(word)}={quoted(text.strip(chr(34) + chr(39)))}"
    return f"{word} cannot be read: its value needs quotes that reach this program. Type {shlex.quote(example)}"


def options(group: str, before: Sequence[str], composer: Composer) -> list[str]:
    """The options of a group, from Hydra's error for an option that does not exist."""
    error = _compose_error([*before, f"{group}='?'"], composer)
    return [str(option) for option in getattr(error, "options", None) or []]


def _no_option(word: str, group: str, options: Sequence[str]) -> str:
    text = value(word) or ""
    hint = nearest(text.lower(), options)
    own = ""
    if group in _NODES and "." in text:
        own = f". To name a class or function type {shlex.quote(f'{group}={{_target_: {text}}}')}, with its arguments"
    return f"{word}: there is no such {group}. {hint}Type {group}= and one of: {', '.join(options)}{own}"


def _several(override: Override) -> str:
    name, text = override.key_or_group, value(str(override.input_line)) or ""
    listed, single = shlex.quote(f"{name}=[{text}]"), shlex.quote(f"{name}={quoted(text)}")
    return (
        f"{override.input_line} names several values, and this is one run. Type {listed} for a list, {single} for one "
        f"text, or phalanx sweep {shlex.quote(str(override.input_line))} to train them all"
    )


def _lacking(override: Override, lacking: str, known: Sequence[str]) -> str:
    """The message for a dict that is merged into a node which has no key `lacking`."""
    name, word = override.key_or_group, str(override.input_line)
    if f"{name}._target_" in known:
        whole = shlex.quote(f"+{word.lstrip('+')}")
        hint = f"To add it type it with +, and to replace {name} type ~{name} {whole}. "
    else:
        hint = "A data set is a part of it: type data.train={_target_: …}. " if name == "data" else ""
    inside = [each for each in known if each.startswith(f"{name}.")]
    told = unknown_key_message(f"{name}.{lacking}", inside, hint)
    return f"{word}: {told}"


def _unknown(override: Override, known: Sequence[str]) -> str:
    name = override.key_or_group
    open_ended = f"{name.rpartition('.')[0]}._target_" in known and not override.is_delete()
    add = f" To add an argument of your own there, type +{override.input_line}" if open_ended else ""
    return unknown_key_message(name, known) + add


def _known(found: Composition) -> list[str]:
    """Every key of a composed config, and its groups."""
    groups = [group for group in found.choices if not group.startswith("hydra/")]
    return [*_flatten(found.plain, ""), *groups]


def _flatten(node: Any, path: str) -> Iterator[str]:
    if path:
        yield path
    if isinstance(node, dict):
        for name, child in node.items():
            yield from _flatten(child, f"{path}.{name}" if path else str(name))


def _flat(error: BaseException | None) -> str:
    """The exception's text, or its cause's where it has none, on one line."""
    lines = str(error).splitlines()
    text = lines[0] if isinstance(error, OmegaConfBaseException) and lines else " ".join(str(error).split())
    if not text and error is not None and error.__cause__ is not None:
        return _flat(error.__cause__)
    return text.rstrip(".")

"""The arguments of a target, held against its signature, and converted to what its annotations ask for."""

import inspect
import typing
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from enum import Enum
from pathlib import Path
from types import MappingProxyType, SimpleNamespace
from typing import Any

from ..common.escaping import escape_nested
from ..common.suggest import nearest
from ..config.annotations import MisfitError, as_annotated, example, fits, is_open_config
from ..config.overrides import shown
from ..exit.codes import ConfigError
from .group_keys import origin
from .node import TargetNode

NOTHING: Mapping[type, Any] = MappingProxyType({})
_CONF = Path(__file__).parents[1] / "conf"
_BY_POSITION = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
_BY_NAME = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


class Arguments:
    """What a callable takes, and how a config's arguments fit that.

    `given` are the names of what the caller passes besides. Where the callable has no parameter of the one name, that is
    passed first, by position.
    """

    def __init__(
        self,
        found: Callable[..., Any],
        given: Collection[str] = (),
        named: Collection[str] = (),
        provided: Mapping[type, Any] = NOTHING,
    ) -> None:
        """`named` are the arguments that the config passes by name; `provided` are objects by the annotation that they are
        for.
        """
        self._found = found
        self._parameters = _parameters(found)
        kinds = {p.kind for p in self._parameters.values()}
        self.open_ended = inspect.Parameter.VAR_KEYWORD in kinds or _wrapper_takes_any(found)
        self._any_number = inspect.Parameter.VAR_POSITIONAL in kinds
        self._names = [name for name, p in self._parameters.items() if p.kind in _BY_NAME]
        self._order = [name for name, p in self._parameters.items() if p.kind in _BY_POSITION]
        self._known = {*self._names, *self._order}
        self._given = tuple(given)
        self.provided = {
            name: provided[kind]
            for name in (self._names if provided else ())
            if name not in named and name not in self._given
            for kind in _options(self.annotation(name))
            if kind in provided
        }
        first = next(iter(self._order), None)
        self.given_first = (
            len(self._given) == 1 and self._given[0] not in self._names and first is not None and first not in named
        )

    def check(self, node: TargetNode, where: str) -> None:
        """Raise ConfigError for an argument that is not taken, or does not fit, and for one that is lacking."""
        name_of_found = self._name(node)
        by_position = self._positions(node, where)
        for name, value in node.keywords.items():
            if name not in self._names and not self.open_ended:
                hint = nearest(f"{where}.{name}", [f"{where}.{known}" for known in self._names])
                taken = ", ".join(self._names) or "nothing"
                raise ConfigError(
                    f"{where}.{name} is no argument of {name_of_found}. {hint}It takes: {taken}{origin(where, name)}"
                )
            if name in by_position:
                raise ConfigError(
                    f"{where}.{name} is passed by position already, in {where}._args_. Leave it out in one of the two"
                )
            self._check_fits(value, name, f"{where}.{name}", name_of_found)
        for i, (value, known) in enumerate(zip(node.positional, by_position, strict=False)):
            self._check_fits(value, known, f"{where}._args_.{i}", name_of_found)
        self._check_complete(node, by_position, where)

    def converted(self, value: Any, name: str | None) -> Any:
        """The value for the parameter `name` as its annotation asks for it, None for one that has no name."""
        if name is None or name not in self._known:
            return as_annotated(value, Any)
        hint, default = self.annotation(name), self._parameters[name].default
        if hint is Any and isinstance(value, str) and isinstance(default, Enum):  # its default says what it is
            with suppress(MisfitError):
                return as_annotated(value, type(default))
        return as_annotated(value, hint)

    def as_passed(self, value: Any, name: str | None, convert: str | None) -> Any:
        """The value with dicts and lists as OmegaConf's, where `convert` or the annotation asks for them."""
        asked = name is not None and name in self._known and is_open_config(self.annotation(name))
        return to_omegaconf(value) if (convert == "none" or asked) and isinstance(value, dict | list) else value

    def by_position(self, count: int) -> list[str | None]:
        """The names of the parameters that the first `count` values of `_args_` are for."""
        names = self._order[1:] if self.given_first else self._order
        return [*names[:count], *[None] * (count - len(names))]

    def annotation(self, name: str) -> Any:
        """The annotation of a parameter, Any where it has none or one that does not evaluate."""
        found = self._found
        function = inspect.unwrap(found.__init__ if isinstance(found, type) else found)  # type: ignore[misc]
        alone = SimpleNamespace(__annotations__={name: getattr(function, "__annotations__", {}).get(name, Any)})
        try:  # by itself: another argument's may be a name that exists for type checkers only
            return typing.get_type_hints(alone, getattr(function, "__globals__", {}))[name]
        except Exception:  # it is the user's text, evaluated
            return Any

    def _positions(self, node: TargetNode, where: str) -> Sequence[str | None]:
        if not node.positional:
            return []
        names = self.by_position(len(node.positional))
        if None in names and not self._any_number:
            raise ConfigError(
                f"{where}._args_ has {len(names)} values, and {self._name(node)} takes {names.index(None)} by position. "
                f"Type the others by name: {', '.join(self._names)}"
            )
        for name in set(names) & set(self._given):
            raise ConfigError(
                f"{where}._args_ would pass {name}, which is passed already. Type the arguments of {self._name(node)} by "
                f"name: {', '.join(known for known in self._names if known not in self._given)}"
            )
        return names

    def _check_fits(self, value: Any, name: str | None, where: str, name_of_found: str) -> None:
        if name not in self._known or fits(value, hint := self.annotation(name)):
            return
        default = self._parameters[name].default
        left = value is None and default is not inspect.Parameter.empty
        raise ConfigError(
            f"{where}={shown(value)} does not fit: {name_of_found} takes {inspect.formatannotation(hint)} there. "
            f"Type {where}= and a value such as {example(hint)}"
            f"{f', or leave it out (~{where}) for {shown(default)}' if left else ''}"
        )

    def _check_complete(self, node: TargetNode, by_position: Sequence[str | None], where: str) -> None:
        """With _partial_ who calls it adds the rest, but for what is passed here."""
        if self._given and not self.given_first and not self.open_ended and not {*self._given} <= {*self._names}:
            lacking = ", ".join(name for name in self._given if name not in self._names)
            raise ConfigError(
                f"{where}._target_={node.target} takes no argument {lacking}, which is passed to what makes this. Give "
                f"it one, or type {where}._target_= with one that has it"
            )
        if node.partial and not self._given:
            return
        known = {*by_position, *node.keywords, *self._given, *self.provided}
        known |= {*self._order[:1]} if self.given_first else set()
        unset = [
            each
            for each, parameter in self._parameters.items()
            if parameter.default is inspect.Parameter.empty and each not in known and each in self._known
        ]
        if by_place := [each for each in unset if each not in self._names]:
            raise ConfigError(
                f"{where} lacks {', '.join(by_place)}, which {self._name(node)} takes by position alone. Type "
                f"+{where}._args_=[…]"
            )
        if unset:
            keys = [f"{where}.{each}" for each in unset]
            one = len(keys) == 1
            raise ConfigError(
                f"{', '.join(keys)} {'is' if one else 'are'} not set and {self._name(node)} needs "
                f"{'it' if one else 'them'}. Type {' '.join(f'+{key}=…' for key in keys)} with "
                f"{'its value' if one else 'their values'}{self._file_with_defaults(node, where)}"
            )

    def _file_with_defaults(self, node: TargetNode, where: str) -> str:
        """Of a class of ours the file of its group, whose defaults are no arguments' defaults."""
        folder = _CONF / where
        files = sorted(folder.glob("*.yaml")) if where.isidentifier() else []
        named = [file.stem for file in files if f"_target_: {node.target}\n" in file.read_text(encoding="utf-8")]
        return f", or {where}={named[0]}, which sets all of them" if named else ""

    def _name(self, node: TargetNode) -> str:
        return str(getattr(self._found, "__name__", node.target))


def _options(annotation: Any) -> list[type]:
    """The classes that an annotation admits by itself, as `Cache` and `Cache | None` do."""
    return [each for each in (annotation, *typing.get_args(annotation)) if isinstance(each, type)]


def _wrapper_takes_any(found: Callable[..., Any]) -> bool:
    """Whether it is wrapped in what takes arguments of any name: what is done with them no signature tells."""
    function: Any = found.__init__ if isinstance(found, type) else found  # type: ignore[misc]
    while (wrapped := getattr(function, "__wrapped__", None)) is not None:
        code = getattr(function, "__code__", None)
        if code is not None and code.co_flags & inspect.CO_VARKEYWORDS:
            return True
        function = wrapped
    return False


def to_omegaconf(value: Any) -> Any:
    """A dict or list as OmegaConf's, which may hold objects that were built. No text in it is an interpolation."""
    from omegaconf import OmegaConf  # here, for hardly any target asks for it

    return OmegaConf.create(escape_nested(value), flags={"allow_objects": True})


def _parameters(found: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    """The parameters of a callable; any if it is written in C without a signature."""
    try:
        return inspect.signature(found).parameters
    except (ValueError, TypeError):
        any_number = inspect.Parameter("values", inspect.Parameter.VAR_POSITIONAL)
        return {"values": any_number, "any": inspect.Parameter("any", inspect.Parameter.VAR_KEYWORD)}

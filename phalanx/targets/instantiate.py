"""Build what the `_target_` nodes of a config name, as Hydra does, and check what comes back."""

import functools
import inspect
from collections.abc import Callable, Collection, Mapping
from contextlib import nullcontext, suppress
from typing import Any, TypeVar

from ..exit import user_error
from ..exit.codes import ConfigError
from . import kinds as made_kinds
from .arguments import NOTHING, Arguments, to_omegaconf
from .build_errors import explained
from .kinds import Kinds, cannot_make
from .locate import is_dotted, locate
from .node import TargetNode, children, is_node, read_node
from .trust import Trust, modules_of

Kind = TypeVar("Kind")


class Targets:
    """Checks and builds `_target_` nodes.

    A node of the user's own config (`trust` is None) may name any callable. `trust` limits what a stored config may build:
    classes of its list, derived from one of `kinds`, and whatever lies in a trusted package. What the node of a key returns
    is checked either way.
    """

    def __init__(self, kinds: Kinds, trust: Trust | None, provided: Mapping[type, Any] = NOTHING) -> None:
        """`provided` are objects by their types: an argument that is annotated with one of these, and that the config does
        not set, gets it.
        """
        self._kinds = kinds
        self._trust = trust
        self._provided = provided

    def check(self, node: Mapping[str, Any], where: str, kind: type | Kinds, given: Collection[str] = ()) -> None:
        """Raise ConfigError unless `node` names what may give a `kind`, and the arguments that it takes.

        `given` are the names of arguments that are passed besides when it is built.
        """
        kinds = _kinds(kind)
        read = read_node(node, where)
        if read.partial and not given and not made_kinds.wants_callable(kinds):
            name = made_kinds.names(kinds)
            raise ConfigError(f"{where}._partial_=true makes no {name}, only what makes one. Leave it out")
        self._check(read, where, kinds, given)

    def resolve(self, node: Mapping[str, Any], where: str, kind: type | Kinds) -> Callable[..., Any]:
        """What `node` names: a callable that may give a `kind`. Raises ConfigError."""
        return self._resolve(read_node(node, where), where, _kinds(kind))

    def build(self, node: Mapping[str, Any], where: str, kind: type[Kind], **given: Any) -> Kind:
        """Build `node`; `given` are passed besides, also where it is partial. Raises ConfigError naming `where`.

        An exception in what is called that no config is to blame for is raised as it is.
        """
        made: Kind = self.build_one_of(node, where, (kind,), **given)
        return made

    def build_one_of(self, node: Mapping[str, Any], where: str, kinds: Kinds, **given: Any) -> Any:
        """As `build`, for a key that takes objects of several kinds."""
        made = self._build(read_node(node, where), where, kinds, given, None)
        if not made_kinds.is_made(made, kinds):
            raise ConfigError(
                f"{where}: {node['_target_']} returned {made_kinds.described(made)}, no {made_kinds.names(kinds)}. Type "
                f"{where}._target_= with what makes one"
            )
        return made

    def packages(self, node: Mapping[str, Any], where: str, kind: type | Kinds) -> set[str]:
        """The top-level packages with the code of a node's callable, and of those named further down."""
        return self._packages(node, where, _kinds(kind), built=True)

    def _packages(self, value: Any, where: str, kinds: Kinds | None, built: bool) -> set[str]:
        """`built`: by us; else a node may name what only the code that gets it understands."""
        found: set[str] = set()
        if is_node(value):
            node = read_node(value, where)
            with nullcontext() if built else suppress(ConfigError):
                modules = modules_of(self._resolve(node, where, kinds))
                # Also of the module that the path names, which may hand on another one tomorrow.
                found = {module.partition(".")[0] for module in [*modules, str(node.target)]}
            built = built and (node.recursive or self._trust is not None)
        return found.union(*(self._packages(child, f"{where}.{name}", None, built) for name, child in children(value)))

    def _check(
        self, node: TargetNode, where: str, kinds: Kinds | None, given: Collection[str], built: bool = True
    ) -> None:
        """`built`: by us, so that all arguments have to be there."""
        found = self._resolve(node, where, kinds)
        inner = built and node.recursive
        if inner or self._trust is not None:
            self._check_nested({**node.keywords, "_args_": [*node.positional]}, where, inner)
        if self._trust is not None:
            self._trust.check_node(node, found, where, handed_on=not built)
        if built:
            Arguments(found, given, node.keywords, self._provided).check(node, where)

    def _check_nested(self, value: Any, where: str, built: bool) -> None:
        for name, child in children(value):
            if is_node(child):
                self._check(read_node(child, f"{where}.{name}"), f"{where}.{name}", None, (), built)
            else:
                self._check_nested(child, f"{where}.{name}", built)

    def _build(
        self, node: TargetNode, where: str, kinds: Kinds | None, given: Mapping[str, Any], convert: str | None
    ) -> Any:
        """`convert` is that of the node around it, which holds where this one says nothing."""
        found = self._resolve(node, where, kinds)
        if self._trust is not None:
            self._check(node, where, kinds, given)  # also where nobody asked for that before
        arguments = Arguments(found, given, node.keywords, self._provided)
        convert = node.convert or convert

        def value(given_value: Any, name: str | None, key: str) -> Any:
            made = self._value(arguments.converted(given_value, name), key, node, convert)
            return arguments.as_passed(made, name, convert)

        names = arguments.by_position(len(node.positional))
        positional = [
            value(each, name, f"{where}._args_.{i}")
            for i, (each, name) in enumerate(zip(node.positional, names, strict=True))
        ]
        keywords = {name: value(each, name, f"{where}.{name}") for name, each in node.keywords.items()}
        passed = keywords if self._trust is None else self._trust.without_downloads(found, keywords)
        if node.partial and not given:
            bound = {**arguments.provided, **passed}
            return functools.partial(found, *positional, **bound) if positional or bound else found
        first = [*given.values()] if arguments.given_first else []
        named = {**arguments.provided, **(passed if arguments.given_first else {**passed, **given})}
        try:
            return found(*first, *positional, **named)
        except ConfigError as error:
            if self._trust is None or all(passed[name] is keywords[name] for name in keywords):
                raise
            raise ConfigError(f"{error}. {self._trust.download_hint(found)}") from None
        except Exception as error:
            refused = error.__traceback__ is not None and error.__traceback__.tb_next is None
            takes_any, target = arguments.open_ended, str(node.target)
            told = explained(error, where, target, keywords, refused=refused, takes_any=takes_any)
            if told is not None:
                raise told from error
            user_error.add_context(error, act=f"while {where} was built by {target}")
            raise

    def _value(self, value: Any, where: str, around: TargetNode, convert: str | None) -> Any:
        """A value with the nodes in it built, where the node `around` it does not build them itself."""
        if is_node(value):
            if around.recursive:
                return self._build(read_node(value, where), where, None, {}, convert)
            return value if convert in ("partial", "object", "all") else to_omegaconf(value)
        if isinstance(value, Mapping):
            return {name: self._value(child, f"{where}.{name}", around, convert) for name, child in value.items()}
        if type(value) in (list, tuple):
            return type(value)(self._value(child, f"{where}.{i}", around, convert) for i, child in enumerate(value))
        return value

    def _resolve(self, node: TargetNode, where: str, kinds: Kinds | None) -> Callable[..., Any]:
        """`kinds` are those of a key; None is for a node further down, which may be of any."""
        path = node.target
        if not isinstance(path, str) or not is_dotted(path):
            raise ConfigError(
                f"{where}._target_={path} names no class or function. Type {where}._target_=package.module.Class"
            )
        found: Callable[..., Any] = self._find(path, where, kinds)
        if not callable(found):
            raise ConfigError(
                f"{where}._target_={path} is {made_kinds.described(found)}, which cannot be called. Type {where}._target_= "
                "with a class or function"
            )
        if kinds is not None and made_kinds.is_made(found, kinds) and not made_kinds.wants_callable(kinds):
            raise ConfigError(
                f"{where}._target_={path} is {made_kinds.described(found)} already, made where its module is imported, by "
                f"each process for itself. Type {where}._target_= with its class, or a function that makes it"
            )
        if self._trust is None and kinds is not None and not _makes_callable(node, kinds) and cannot_make(found, kinds):
            raise ConfigError(
                f"{where}._target_={path} is no class derived from {made_kinds.names(kinds)}"
                f"{made_kinds.namesake(found, kinds)}, so it is not called. "
                f"Type {where}._target_=package.module.Class with a class that is, or a function that returns one"
            )
        if inspect.isabstract(found):
            raise ConfigError(
                f"{where}._target_={path} is abstract. Type {where}._target_= with a class derived from it"
            )
        return found

    def _find(self, path: str, where: str, kinds: Kinds | None) -> Any:
        key = f"{where}._target_"
        if self._trust is None:
            return locate(path, key, of_classes=True)
        self._trust.check_path(path, where)
        found = locate(path, key, of_classes=self._trust.names(path))
        self._trust.check(
            found, self._kinds if kinds is None or made_kinds.wants_callable(kinds) else kinds, path, where
        )
        return found


def _makes_callable(node: TargetNode, kinds: Kinds) -> bool:
    return node.partial and made_kinds.wants_callable(kinds)


def _kinds(kind: type | Kinds) -> Kinds:
    return kind if isinstance(kind, tuple) else (kind,)

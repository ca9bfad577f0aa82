"""Instantiate `_target_` nodes of the config: only classes derived from what their key expects are called."""

import functools
import importlib
import inspect
import pkgutil
import typing
from collections.abc import Callable, Collection, Mapping
from types import SimpleNamespace
from typing import Any, TypeVar
from urllib.error import URLError

from ..common.suggest import nearest
from ..config.annotations import as_annotated, example, fits
from ..config.moved_names import OLD_PACKAGES, explain_old_import, explain_old_target
from ..exit.codes import ConfigError
from .trust import Trust

Kind = TypeVar("Kind")


class Targets:
    """Checks and instantiates `_target_` nodes.

    `kinds` are the base classes that a nested `_target_` may derive from. `trust` limits what a stored config may build;
    None, for what the user typed, admits any class of the kind.
    """

    def __init__(self, kinds: tuple[type, ...], trust: Trust | None) -> None:
        self._kinds = kinds
        self._trust = trust

    def check(self, node: Mapping[str, Any], where: str, kind: type, given: Collection[str] = ()) -> None:
        """Raise ConfigError unless `node` names a class of `kind` and the arguments that it takes, beside `given`."""
        if node.get("_partial_"):
            raise ConfigError(f"{where}._partial_=true makes no {kind.__name__}, only what makes one. Leave it out")
        self._check(node, where, (kind,), given)

    def resolve(self, node: Mapping[str, Any], where: str, kind: type) -> Callable[..., Any]:
        """What `node` names: a class of `kind`, or another callable that `trust` admits. Raises ConfigError."""
        return self._resolve(node, where, (kind,))

    def build(self, node: Mapping[str, Any], where: str, kind: type[Kind], **given: Any) -> Kind:
        """Instantiate `node`. Errors of its constructor become a ConfigError naming `where`."""
        made = self._build(node, where, (kind,), given)
        if not isinstance(made, kind):
            raise ConfigError(
                f"{where}: {node['_target_']} returned a {type(made).__name__}, no {kind.__name__}. Type {where}._target_= "
                "with what makes one"
            )
        return made

    def packages(self, value: Any, where: str) -> set[str]:
        """The top-level packages that the classes of a node, and those named further down, were defined in."""
        own = isinstance(value, Mapping) and "_target_" in value
        found = {str(self._resolve(value, where, self._kinds).__module__).partition(".")[0]} if own else set()
        return found.union(*(self.packages(child, f"{where}.{name}") for name, child in _children(value)))

    def _check(self, node: Mapping[str, Any], where: str, kinds: tuple[type, ...], given: Collection[str]) -> None:
        found = self._resolve(node, where, kinds)
        arguments = _arguments(node)
        for name, value in arguments.items():
            self._check_nested(value, f"{where}.{name}")
        if self._trust is not None:
            arguments = self._trust.without_downloads(found, arguments, where)
        _check_arguments(found, where, arguments, given, whole=not node.get("_partial_"))

    def _check_nested(self, value: Any, where: str) -> None:
        if isinstance(value, Mapping) and "_target_" in value:
            self._check(value, where, self._kinds, ())
            return
        for name, child in _children(value):
            self._check_nested(child, f"{where}.{name}")

    def _build(self, node: Mapping[str, Any], where: str, kinds: tuple[type, ...], given: Mapping[str, Any]) -> Any:
        found = self._resolve(node, where, kinds)
        asked = arguments = {
            name: self._value(as_annotated(value, _annotation(found, name)), f"{where}.{name}")
            for name, value in _arguments(node).items()
        }
        if self._trust is not None:
            arguments = self._trust.without_downloads(found, arguments, where)
        if node.get("_partial_"):
            return functools.partial(found, **arguments) if arguments else found
        try:
            return found(**arguments, **given)
        except ConfigError as error:
            if self._trust is None or all(arguments[name] is asked[name] for name in asked):
                raise
            raise ConfigError(f"{error}. {self._trust.download_hint(found)}") from None
        except URLError as error:
            raise ConfigError(
                f"{where} cannot be built: {node['_target_']} could not fetch what it needs: {_line(error)}. "
                "Fetch it on a machine that has a network, or leave out the argument that asks for it"
            ) from error
        except ValueError as error:
            raise ConfigError(f"{where} cannot be built: {node['_target_']} says: {_line(error)}") from error
        except RuntimeError as error:
            if "negative dimension" not in str(error):  # what torch says of a size below zero
                raise
            raise ConfigError(
                f"{where} cannot be built: {node['_target_']} got a negative size: {_line(error)}"
            ) from error

    def _value(self, value: Any, where: str) -> Any:
        if isinstance(value, Mapping) and "_target_" in value:
            return self._build(value, where, self._kinds, {})
        if isinstance(value, Mapping):
            return {name: self._value(child, f"{where}.{name}") for name, child in value.items()}
        if type(value) in (list, tuple):
            return type(value)(self._value(child, f"{where}.{i}") for i, child in enumerate(value))
        return value

    def _resolve(self, node: Mapping[str, Any], where: str, kinds: tuple[type, ...]) -> Callable[..., Any]:
        path = node.get("_target_")
        if not isinstance(path, str) or not _is_dotted(path):
            raise ConfigError(f"{where}._target_={path} names no class. Type {where}._target_=package.module.Class")
        if self._trust is not None:
            self._trust.check_path(path, where)
        found = _locate(path, where)
        is_of_kind = _is_class(found, kinds) or _is_torchvision_builder(found, kinds)
        if self._trust is not None:
            self._trust.check(found, is_of_kind, path, where)
        if not is_of_kind and not (self._trust is not None and callable(found)):
            expected = " or ".join(kind.__name__ for kind in kinds)
            raise ConfigError(
                f"{where}._target_={path} is no class derived from {expected}, so it is not called. "
                f"Type {where}._target_=package.module.Class with a class that is"
            )
        if inspect.isabstract(found):
            raise ConfigError(
                f"{where}._target_={path} is abstract. Type {where}._target_= with a class derived from it"
            )
        made: Callable[..., Any] = found
        return made


def _arguments(node: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in node.items() if name not in ("_target_", "_partial_")}


def _children(value: Any) -> Collection[tuple[Any, Any]]:
    return value.items() if isinstance(value, Mapping) else list(enumerate(value)) if isinstance(value, list) else ()


def _line(error: Exception) -> str:
    return " ".join(str(error).split())


def _is_dotted(path: str) -> bool:
    return "." in path and all(part.isidentifier() for part in path.split("."))


def _locate(path: str, where: str) -> Any:
    if (told := explain_old_target(path, f"{where}._target_")) is not None:
        raise ConfigError(told)
    module, _, name = path.rpartition(".")
    if module == "__main__":
        raise ConfigError(
            f"{where}._target_={path}: {name} is defined in a notebook or script, which ranks, being processes of their "
            "own, do not run. Write it into a file beside that, such as mymodule.py, and type "
            f"{where}._target_=mymodule.{name}"
        )
    try:
        holder = importlib.import_module(module)
    except ModuleNotFoundError as error:
        why = explain_old_import(error) or _no_module(module, str(error.name))
        raise ConfigError(f"{where}._target_={path}: {why}") from None
    if not hasattr(holder, name):
        hint = nearest(f"{module}.{name}", [f"{module}.{known}" for known in dir(holder)])
        raise ConfigError(
            f"{where}._target_={path}: {module} has no {name}. {hint or 'Type a name that it has'}".strip()
        )
    return getattr(holder, name)


def _no_module(wanted: str, lacking: str) -> str:
    parent = lacking.rpartition(".")[0]
    if not f"{wanted}.".startswith(f"{lacking}."):
        return f"{wanted} imports {lacking}, which is not installed. Install it"
    if lacking in OLD_PACKAGES:
        return (
            f"there is no package {lacking}, and all of Phalanx is in the package phalanx now. Type a name of "
            "phalanx.models, phalanx.data, phalanx.tasks or phalanx.schedules, or put the folder of yours on PYTHONPATH"
        )
    if not parent:
        return f"there is no package {lacking}. Install it, or put its folder on PYTHONPATH"
    siblings = [
        module.name for module in pkgutil.iter_modules(getattr(importlib.import_module(parent), "__path__", []))
    ]
    hint = nearest(lacking, [f"{parent}.{name}" for name in siblings])
    return f"there is no module {lacking}. {hint or f'{parent} has: ' + ', '.join(siblings)}".strip()


def _is_class(found: Any, kinds: tuple[type, ...]) -> bool:
    return isinstance(found, type) and issubclass(found, kinds)


def _is_torchvision_builder(found: Any, kinds: tuple[type, ...]) -> bool:
    """Whether it is a function of torchvision.models that says it returns what is wanted."""
    if not inspect.isfunction(found) or not found.__module__.startswith("torchvision.models."):
        return False
    return _is_class(typing.get_type_hints(found).get("return"), kinds)


def _check_arguments(
    found: Callable[..., Any], where: str, arguments: Mapping[str, Any], given: Collection[str], whole: bool
) -> None:
    """`whole`: all required arguments must be there; otherwise (_partial_) the caller adds the rest."""
    parameters = _parameters(found)
    open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    names = [name for name, p in parameters.items() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    for name, value in arguments.items():
        if name not in names and not open_ended:
            hint = nearest(f"{where}.{name}", [f"{where}.{known}" for known in names])
            raise ConfigError(f"{where}.{name} is no argument of {found.__name__}. {hint}It takes: {', '.join(names)}")
        if name in names and not fits(value, hint := _annotation(found, name)):
            raise ConfigError(
                f"{where}.{name}={value} does not fit: {found.__name__} takes {inspect.formatannotation(hint)} there. "
                f"Type {where}.{name}= and a value such as {example(hint)}"
            )
    lacking = [n for n in names if parameters[n].default is inspect.Parameter.empty and n not in {*arguments, *given}]
    if lacking and whole:
        raise ConfigError(
            f"{where}.{lacking[0]} is not set and {found.__name__} needs it. Type +{where}.{lacking[0]}= and its value"
        )


def _annotation(found: Callable[..., Any], name: str) -> Any:
    """The annotation of an argument, Any where it has none or one that does not evaluate."""
    function = found.__init__ if isinstance(found, type) else found  # type: ignore[misc]
    function = inspect.unwrap(function)
    alone = SimpleNamespace(__annotations__={name: getattr(function, "__annotations__", {}).get(name, Any)})
    try:  # by itself: another argument's may be a name that exists for type checkers only
        return typing.get_type_hints(alone, getattr(function, "__globals__", {}))[name]
    except Exception:  # it is the user's text, evaluated
        return Any


def _parameters(found: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    """The parameters of a callable; **any if it is written in C without a signature."""
    try:
        return inspect.signature(found).parameters
    except ValueError:
        return {"any": inspect.Parameter("any", inspect.Parameter.VAR_KEYWORD)}

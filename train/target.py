"""From a `_target_` in the config to an object: only a class that is of the kind its key expects is ever called."""

import difflib
import importlib
import inspect
from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeVar

from train.outcome import ConfigError

Kind = TypeVar("Kind")
OWN_PACKAGES = ("train", "torch", "torchvision")


class Targets:
    """Builds what the config names.

    `kinds` are the base classes that a nested `_target_` may derive from. `packages` limits where classes may come from,
    for a config that came with someone else's run; None admits any, as for what the user typed.
    """

    def __init__(self, kinds: tuple[type, ...], packages: Collection[str] | None) -> None:
        self._kinds = kinds
        self._packages = packages

    def check(self, node: Mapping[str, Any], where: str, kind: type, given: Collection[str] = ()) -> None:
        """Raise ConfigError unless `node` names a class of `kind` and the arguments that it takes, beside `given`."""
        found = self._resolve(node, where, (kind,))
        arguments = {name: value for name, value in node.items() if name != "_target_"}
        for name, value in arguments.items():
            self._check_nested(value, f"{where}.{name}")
        _check_arguments(found, where, {**arguments, **dict.fromkeys(given)})

    def build(self, node: Mapping[str, Any], where: str, kind: type[Kind], **given: Any) -> Kind:
        """The object that `node` describes. A ValueError of its constructor becomes a ConfigError naming `where`."""
        found = self._resolve(node, where, (kind,))
        arguments = {name: self._value(value, f"{where}.{name}") for name, value in node.items() if name != "_target_"}
        try:
            made = found(**arguments, **given)
        except ConfigError:
            raise
        except ValueError as error:
            raise ConfigError(f"{where} cannot be built: {node['_target_']} says: {error}") from error
        assert isinstance(made, kind)
        return made

    def package(self, node: Mapping[str, Any], where: str) -> str:
        """The top-level package that the class of `node` was defined in."""
        return str(self._resolve(node, where, self._kinds).__module__).partition(".")[0]

    def _check_nested(self, value: Any, where: str) -> None:
        if isinstance(value, Mapping) and "_target_" in value:
            self._resolve(value, where, self._kinds)
        children = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else ()
        for name, child in children:
            self._check_nested(child, f"{where}.{name}")

    def _value(self, value: Any, where: str) -> Any:
        if isinstance(value, Mapping):
            if "_target_" not in value:
                return {name: self._value(child, f"{where}.{name}") for name, child in value.items()}
            found = self._resolve(value, where, self._kinds)
            return found(**{name: self._value(v, f"{where}.{name}") for name, v in value.items() if name != "_target_"})
        if isinstance(value, list):
            return [self._value(child, f"{where}.{i}") for i, child in enumerate(value)]
        return value

    def _resolve(self, node: Mapping[str, Any], where: str, kinds: tuple[type, ...]) -> Callable[..., Any]:
        path = node.get("_target_")
        if not isinstance(path, str) or not path:
            raise ConfigError(f"{where} names no class. Type {where}._target_=package.module.Class")
        self._admit(path.partition(".")[0], path, where)
        found = _locate(path, where)
        expected = " or ".join(kind.__name__ for kind in kinds)
        is_class = isinstance(found, type) and issubclass(found, kinds)
        if not is_class and not _is_torchvision_builder(found):
            raise ConfigError(f"{where}._target_={path} is no class derived from {expected}, so it is not called")
        self._admit(str(found.__module__).partition(".")[0], path, where)
        made: Callable[..., Any] = found
        return made

    def _admit(self, package: str, path: str, where: str) -> None:
        if self._packages is not None and package not in self._packages:
            raise ConfigError(
                f"{where}._target_={path} comes with a stored config and lies outside the packages trusted for that. "
                f"If you trust it, type run.trust=[{package}]"
            )


def _locate(path: str, where: str) -> Any:
    module, _, name = path.rpartition(".")
    try:
        holder = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise
        raise ConfigError(
            f"{where}._target_={path}: there is no module {error.name}. Install its package, or put its folder on PYTHONPATH"
        ) from None
    except ValueError:
        raise ConfigError(f"{where}._target_={path} is no dotted path. Type {where}._target_=package.module.Class") from None
    if not hasattr(holder, name):
        near = difflib.get_close_matches(name, dir(holder), n=1)
        hint = f"Did you mean {module}.{near[0]}?" if near else f"{module} has no such name"
        raise ConfigError(f"{where}._target_={path} does not exist. {hint}")
    return getattr(holder, name)


def _is_torchvision_builder(found: Any) -> bool:
    return inspect.isfunction(found) and found.__module__.startswith("torchvision.models.")


def _check_arguments(found: Callable[..., Any], where: str, arguments: Mapping[str, Any]) -> None:
    parameters = inspect.signature(found).parameters
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return
    names = [name for name, p in parameters.items() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    for name in arguments:
        if name not in names:
            near = difflib.get_close_matches(name, names, n=1)
            hint = f"Did you mean {where}.{near[0]}? " if near else ""
            raise ConfigError(f"{where}.{name} is no argument of {found.__name__}. {hint}It takes: {', '.join(names)}")
    lacking = [n for n in names if parameters[n].default is inspect.Parameter.empty and n not in arguments]
    if lacking:
        raise ConfigError(f"{where}.{lacking[0]} is not set and {found.__name__} needs it. Type +{where}.{lacking[0]}=…")

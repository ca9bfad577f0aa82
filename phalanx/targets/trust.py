"""What a stored config may build: an allow-list of modules, and the packages that the user trusts."""

import inspect
import itertools
import typing
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..exit.codes import ConfigError
from .kinds import Kinds
from .node import TargetNode

_OWN = (
    *("phalanx.train.models", "phalanx.train.data", "phalanx.train.tasks"),
    *("phalanx.train.schedules", "phalanx.train.parallel", "phalanx.train.samplers"),
)
_MODULES = ("torch.nn", "torch.optim", "torchvision.models", *_OWN)
# They only re-export: each class is judged by the module that defines it.
_PUBLIC = (
    *("phalanx.models", "phalanx.data", "phalanx.tasks", "phalanx.schedules", "phalanx.samplers"),
    "phalanx.parallel",
)
_ADMITTED = (
    "classes of torch.nn and torch.optim, models of torchvision.models, and Phalanx's own models, data, tasks and "
    "schedules"
)


@dataclass(frozen=True)
class Trust:
    """`packages` are those of run.trust, the only ones whose functions may be called.

    No package is trusted by its name alone: torch has functions that run a pickle, a Python file or a shell command.
    """

    packages: Sequence[str]
    typed: str = "run.trust="  # how the user names them

    def names(self, module: str) -> bool:
        """Whether a module, or what lies in one, is in a trusted package."""
        return _lies_in(module, self.packages)

    def check_path(self, path: str, where: str) -> None:
        """Check a dotted path before anything is imported. Raises ConfigError."""
        if self.names(path):
            return
        *module, _ = path.split(".")
        private = any(part.startswith("_") for part in path.split("."))
        if private or not _lies_in(path, (*_MODULES, *_PUBLIC)) or any(not part.islower() for part in module):
            raise self._refusal(path, where, path)  # of a class of the list not even a method

    def check(self, found: Any, kinds: Kinds, path: str, where: str) -> None:
        """What `path` has led to: a class derived from one of `kinds`, or whatever lies in a trusted package. Raises
        ConfigError.
        """
        modules = modules_of(found)
        if self._trusts(found):
            return
        if not modules and self.names(path):
            raise ConfigError(
                f"{where}._target_={path} does not tell where it is defined, so that nothing can admit it in a stored "
                "config. Name a function of a trusted package that calls it"
            )
        of_kind = isinstance(found, type) and issubclass(found, kinds)
        listed = bool(modules) and all(_lies_in(module, _MODULES) for module in modules)
        if not listed or not (of_kind or _is_model_builder(found, kinds)):
            others = [module for module in modules if not self.names(module)]
            raise self._refusal(path, where, f"{others[0]}.{path.rpartition('.')[2]}" if others else path)

    def check_node(self, node: TargetNode, found: Callable[..., Any], where: str, *, handed_on: bool) -> None:
        """Raise ConfigError for what no class of the list gets: arguments by position, which have no name to be judged by,
        nodes that it would build itself, and arguments that have weights or data fetched.

        `handed_on`: it is the code of a trusted package that will build the node.
        """
        if self._trusts(found):
            return
        unusual = {"_args_": bool(node.positional), "_recursive_": not node.recursive, "_convert_": bool(node.convert)}
        unusual["download"] = handed_on and node.keywords.get("download") not in (None, False)
        for key in (key for key, is_set in unusual.items() if is_set):
            raise ConfigError(
                f"{where}.{key} is set in a stored config, where {node.target} takes no such. Leave it out, or type "
                f"{self._words(_package(f'{found.__module__}.x'))} if you trust who made it"
            )
        if _lies_in(str(found.__module__), ("torchvision.models",)):
            self._check_weights(found, node.keywords, where)

    def without_downloads(self, found: Callable[..., Any], arguments: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments, with `download` off for what is in no trusted package."""
        if self._trusts(found):
            return dict(arguments)
        return {name: False if name == "download" else value for name, value in arguments.items()}

    def download_hint(self, found: Callable[..., Any]) -> str:
        """The hint to add to an error of a class whose downloads `without_downloads` has turned off."""
        return f"For a stored config nothing is fetched; to have it fetched, type {self._words(found.__module__)}"

    def _check_weights(self, found: Callable[..., Any], arguments: Mapping[str, Any], where: str) -> None:
        """torchvision fetches weights where an argument of such a name has a value, and some have one by default."""
        parameters = inspect.signature(found).parameters
        defaults = {name: p.default for name, p in parameters.items() if p.default is not p.empty}
        for name, value in {**defaults, **arguments}.items():
            if name.startswith(("weights", "pretrained")) and value not in (None, False):
                raise ConfigError(
                    f"{where}.{name} of a stored config would have weights fetched and read, which no stored config may. "
                    f"Type {'' if name in arguments else '+'}{where}.{name}=null, or {self._words(found.__module__)} if "
                    "you trust who made it"
                )

    def _trusts(self, found: Any) -> bool:
        modules = modules_of(found)
        return bool(modules) and all(self.names(module) for module in modules)

    def _refusal(self, path: str, where: str, holder: str) -> ConfigError:
        return ConfigError(
            f"{where}._target_={path} comes with a stored config, which may build nothing but {_ADMITTED}. If you trust "
            f"who made it to run code as you, type {self._words(_package(holder))}"
        )

    def _words(self, package: str) -> str:
        named = [*self.packages, package]
        return f"run.trust=[{','.join(named)}]" if self.typed == "run.trust=" else f"{self.typed}{named}"


def _lies_in(module: str, packages: Collection[str]) -> bool:
    return any(module == package or module.startswith(f"{package}.") for package in packages)


def modules_of(found: Any) -> list[str]:
    """The modules with the code of a callable: where it is defined, and for a method also its class's and its own class's
    that it is inherited from.
    """
    owner, holders = getattr(found, "__self__", None), list[Any]()
    if owner is not None and not inspect.ismodule(owner):
        kind = owner if isinstance(owner, type) else type(owner)
        name = getattr(found, "__name__", "")
        holders = [kind, *itertools.islice((base for base in kind.__mro__ if name in vars(base)), 1)]
    known = [getattr(each, "__module__", None) for each in (found, *holders)]
    return [module for module in dict.fromkeys(known) if isinstance(module, str)]


def _package(holder: str) -> str:
    """What to trust for the sake of the object `holder`: of torch its module, as all of it is more than one has in mind."""
    top, *inner = holder.split(".")[:-1] or [holder]
    if top not in ("torch", "torchvision", "phalanx"):
        return top
    return ".".join([top, *itertools.takewhile(str.islower, inner)])


def _is_model_builder(found: Any, kinds: Kinds) -> bool:
    """Whether it is one of torchvision's functions that build a model, and says that it returns one of `kinds`."""
    if not inspect.isfunction(found) or not found.__module__.startswith("torchvision.models."):
        return False
    made = typing.get_type_hints(found).get("return")
    if not (isinstance(made, type) and issubclass(made, kinds)):
        return False
    from torchvision import models  # here, for it takes a second

    return any(models.get_model_builder(name) is found for name in models.list_models())

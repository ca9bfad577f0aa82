"""What a stored config may build: an allow-list of modules, and the packages that the user trusts."""

import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..exit.codes import ConfigError

_OWN = (
    *("phalanx.train.models", "phalanx.train.data", "phalanx.train.tasks"),
    *("phalanx.train.schedules", "phalanx.train.parallel"),
)
_MODULES = ("torch.nn", "torch.optim", "torchvision.models", *_OWN)
# They only re-export: each class is judged by the module that defines it.
_PUBLIC = ("phalanx.models", "phalanx.data", "phalanx.tasks", "phalanx.schedules", "phalanx.parallel")
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

    def check_path(self, path: str, where: str) -> None:
        """Check a dotted path before anything is imported. Raises ConfigError."""
        private = any(part.startswith("_") for part in path.split("."))
        if not self._names(path) and (private or not _lies_in(path, (*_MODULES, *_PUBLIC))):
            raise self._refusal(path, where, path)

    def check(self, found: Any, is_of_kind: bool, path: str, where: str) -> None:
        """What `path` has led to; `is_of_kind` tells that it is a class derived from what its key expects, or a function
        that says it returns one. Raises ConfigError.
        """
        module = str(getattr(found, "__module__", None))
        if self._names(module):
            return
        if (
            not _lies_in(module, _MODULES)
            or not is_of_kind
            or not (isinstance(found, type) or _is_model_builder(found))
        ):
            raise self._refusal(path, where, f"{module}.{path.rpartition('.')[2]}")

    def without_downloads(self, found: Callable[..., Any], arguments: Mapping[str, Any], where: str) -> dict[str, Any]:
        """The arguments with `download` off. Raises ConfigError for arguments that fetch weights."""
        module = str(found.__module__)
        if self._names(module):
            return dict(arguments)
        if _lies_in(module, ("torchvision.models",)):
            self._check_weights(found, arguments, where)
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

    def _names(self, module: str) -> bool:
        return _lies_in(module, self.packages)

    def _refusal(self, path: str, where: str, holder: str) -> ConfigError:
        top = holder.partition(".")[0]
        # All of torch is more than one who trusts a class of it has in mind.
        package = holder.rpartition(".")[0] if top in ("torch", "torchvision", "phalanx") else top
        return ConfigError(
            f"{where}._target_={path} comes with a stored config, which may build nothing but {_ADMITTED}. If you trust "
            f"who made it to run code as you, type {self._words(package)}"
        )

    def _words(self, package: str) -> str:
        named = [*self.packages, package]
        return f"run.trust=[{','.join(named)}]" if self.typed == "run.trust=" else f"{self.typed}{named}"


def _lies_in(module: str, packages: Collection[str]) -> bool:
    return any(module == package or module.startswith(f"{package}.") for package in packages)


def _is_model_builder(found: Any) -> bool:
    from torchvision import models  # here, for it takes a second

    return any(models.get_model_builder(name) is found for name in models.list_models())

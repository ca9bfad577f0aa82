"""Find the object that a dotted path names: a class or function of a module, or a method of one of its classes."""

import pkgutil
from importlib import import_module
from typing import Any

from ..common.suggest import nearest
from ..config.moved_names import OLD_PACKAGES, explain_old_import, explain_old_target
from ..exit import user_error
from ..exit.codes import ConfigError


def is_dotted(path: str) -> bool:
    return "." in path and all(part.isidentifier() for part in path.split("."))


def locate(path: str, where: str, *, of_classes: bool) -> Any:
    """The object at `path`, the value of the key `where`. Raises ConfigError, and what importing its module raises.

    The longest part of the path that is a module is imported, and the rest are attributes: with `of_classes` any number,
    as of a class, else one.
    """
    if (told := explain_old_target(path, where)) is not None:
        raise ConfigError(told)
    parts = path.split(".")
    if parts[0] == "__main__":
        raise ConfigError(
            f"{where}={path}: {parts[-1]} is defined in a notebook or script, which ranks, being processes of their "
            "own, do not run. Write it into a file beside that, such as mymodule.py, and type "
            f"{where}=mymodule.{parts[-1]}"
        )
    found, rest, lacking = _import_longest(path, where, shortest=1 if of_classes else len(parts) - 1)
    holder = path[: len(path) - len(".".join(rest)) - 1]
    for name in rest:
        if not hasattr(found, name):
            public = [known for known in dir(found) if name.startswith("_") or not known.startswith("_")]
            hint = nearest(f"{holder}.{name}", [f"{holder}.{known}" for known in public])
            is_module = lacking is not None and name == rest[0] != rest[-1]
            if is_module and (not hint or "Did you mean" in str(lacking)):
                raise ConfigError(f"{where}={path}: {lacking}")
            raise ConfigError(f"{where}={path}: {holder} has no {name}. {hint or 'Type a name that it has'}".strip())
        found, holder = getattr(found, name), f"{holder}.{name}"
    return found


def _import_longest(path: str, where: str, shortest: int) -> tuple[Any, list[str], str | None]:
    """The module, the names that follow it, and why no longer part of the path is one."""
    parts, lacking = path.split("."), None
    for count in range(len(parts) - 1, 0, -1):
        module = ".".join(parts[:count])
        try:
            return import_module(module), parts[count:], lacking
        except ModuleNotFoundError as error:
            inside = not f"{module}.".startswith(f"{error.name}.")  # an import in the module's own code
            lacking = lacking if lacking and not inside else explain_old_import(error) or _no_module(module, error)
            if inside or count <= shortest:
                break
        except Exception as error:  # whatever the module raises
            user_error.add_context(error, imported=f"{where}={path}")
            raise
    raise ConfigError(f"{where}={path}: {lacking}")


def _no_module(wanted: str, error: ModuleNotFoundError) -> str:
    lacking = str(error.name)
    parent = lacking.rpartition(".")[0]
    if not f"{wanted}.".startswith(f"{lacking}."):
        line = user_error.user_line(error)
        at = f" ({line})" if line else ""
        if lacking.partition(".")[0] != wanted.partition(".")[0]:
            return f"{wanted} imports {lacking}, which is not installed{at}. Install it"
        return f"{wanted} imports {lacking}{at}, and {_hint(lacking, parent)}"
    if lacking in OLD_PACKAGES:
        return (
            f"there is no package {lacking}, and all of Phalanx is in the package phalanx now. Type a name of "
            "phalanx.models, phalanx.data, phalanx.tasks or phalanx.schedules, or put the folder of yours on PYTHONPATH"
        )
    return _hint(lacking, parent)


def _hint(lacking: str, parent: str) -> str:
    if not parent:
        return f"there is no package {lacking}. Install it, or put its folder on PYTHONPATH"
    paths = getattr(import_module(parent), "__path__", [])
    siblings = [module.name for module in pkgutil.iter_modules(paths)]
    hint = nearest(lacking, [f"{parent}.{name}" for name in siblings])
    return f"there is no module {lacking}. {hint or f'{parent} has: ' + ', '.join(siblings)}".strip()

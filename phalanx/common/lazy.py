"""Names that a module hands on from where they are defined, imported when they are first asked for (PEP 562)."""

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any


def handed_on(
    package: str, module: str, names: Mapping[str, Sequence[str]]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """`__getattr__` and `__dir__` of `module`; `names` are those that it hands on, by the modules of `package` that define
    them."""
    modules = {name: f"{package}.{module_name}" for module_name, those in names.items() for name in those}

    def get(name: str) -> Any:
        if name not in modules:
            raise AttributeError(f"module {module!r} has no attribute {name!r}", name=name)
        return getattr(import_module(modules[name]), name)

    return get, lambda: sorted(modules)

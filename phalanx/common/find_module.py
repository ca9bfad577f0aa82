"""Find a module's spec without importing its parent packages."""

import os
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import find_spec


def find_module(module: str, parent: ModuleSpec | None = None) -> ModuleSpec | None:
    """The spec, or None if there is no such module. Submodules are looked up in the folder of their package.

    `parent` is that of the module's package, where it is known.
    """
    top, *rest = module.split(".") if parent is None else ("", module.rpartition(".")[2])
    try:
        spec = find_spec(top) if parent is None else parent
        for name in rest:
            if spec is None or spec.submodule_search_locations is None:
                return None
            spec = _find_in(list(spec.submodule_search_locations), f"{spec.name}.{name}")
    except (
        ImportError,
        ValueError,
        AttributeError,
    ):  # of a module in sys.modules that was not imported, such as __main__
        return None
    return spec


def _find_in(folders: list[str], module: str) -> ModuleSpec | None:
    try:
        return PathFinder.find_spec(module, folders)
    except KeyError:  # a folder without __init__.py: Python asks for its package in sys.modules
        spec = ModuleSpec(module, None, is_package=True)
        name = module.rpartition(".")[2]
        spec.submodule_search_locations = [
            path for path in (os.path.join(f, name) for f in folders) if os.path.isdir(path)
        ]
        return spec

"""Find a module's spec without importing its parent packages."""

from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import find_spec


def find_module(module: str) -> ModuleSpec | None:
    """The spec, or None if there is no such module. Submodules are looked up in the folder of their package."""
    top, *rest = module.split(".")
    try:
        spec = find_spec(top)
        for name in rest:
            if spec is None or spec.submodule_search_locations is None:
                return None
            spec = PathFinder.find_spec(f"{spec.name}.{name}", list(spec.submodule_search_locations))
    except (
        ImportError,
        ValueError,
        AttributeError,
    ):  # of a module in sys.modules that was not imported, such as __main__
        return None
    return spec

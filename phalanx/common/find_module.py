"""How a module would be found, without importing any of it."""

from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import find_spec


def found_module(module: str) -> ModuleSpec | None:
    """None where there is none. What is within a package is looked for in its folder."""
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

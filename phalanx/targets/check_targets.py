"""What can be told of a config's targets where none can be imported, as on a login node, where there may be no torch."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ..config.moved_names import explain_old_target, find_old_import
from ..exit.codes import ConfigError


def check_targets(configs: Iterable[Mapping[str, Any]]) -> None:
    """Raise ConfigError where a target, or an import in its file, has a name from before all was in `phalanx`."""
    for key, target in dict.fromkeys(found for config in configs for found in _targets(config, "")):
        if (told := explain_old_target(target, key)) is not None:
            raise ConfigError(told)
        if (why := find_old_import(target.rpartition(".")[0])) is not None:
            raise ConfigError(f"{key}={target}: {why}")


def _targets(node: Any, path: str) -> Iterator[tuple[str, str]]:
    """The key and the value of each `_target_`."""
    children = node.items() if isinstance(node, Mapping) else enumerate(node) if isinstance(node, list) else ()
    for name, value in children:
        if name == "_target_" and isinstance(value, str):
            yield f"{path}_target_", value
        yield from _targets(value, f"{path}{name}.")

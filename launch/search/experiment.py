"""Writes the words of a command line as an experiment file, which experiment=NAME finds in a config folder."""

from collections.abc import Sequence
from typing import Any

from phalanx.exit.codes import ConfigError

_APART = ("run", "sweep", "cluster", "wandb", "mlflow", "trackio", "sinks")  # sections that do not say what is trained


def experiment(words: Sequence[str], title: str) -> str:
    """Its YAML text, which builds on the experiment that the words choose. Raises ConfigError."""
    import yaml  # here, with Hydra, as other verbs have no use for them
    from hydra.core.override_parser.overrides_parser import OverridesParser

    from phalanx.compose.compose import choices, chosen_option

    options = [word for word in words if word.startswith("-")]
    parser = OverridesParser.create()
    base = chosen_option("experiment", words)
    defaults: list[Any] = [] if base is None else [base]
    values: dict[str, Any] = {}
    for word in words:
        override = None if word.startswith("-") else parser.parse_override(word)
        if override is None or override.key_or_group.replace("/", ".").partition(".")[0] in (*_APART, "experiment"):
            continue
        if override.is_delete():
            raise ConfigError(f"{word} deletes a key, which no experiment can. Leave --save out")
        name = override.key_or_group
        if "." not in name and choices(name, options):
            defaults.append({f"override /{name}": override.value()})
        else:
            _put(values, name.split("."), override.value())
    found = {"defaults": [*defaults, "_self_"], **values}
    return f"# @package _global_\n# {title}\n{yaml.safe_dump(found, sort_keys=False, allow_unicode=True)}"


def _put(values: dict[str, Any], path: Sequence[str], value: Any) -> None:
    for name in path[:-1]:
        values = values.setdefault(name, {})
    values[path[-1]] = value

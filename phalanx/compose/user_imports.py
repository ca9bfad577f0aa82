"""Import the modules of `run.imports`, which register the user's own OmegaConf resolvers, before a config is resolved."""

from collections.abc import Iterable, Sequence
from importlib import import_module
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ..config.overrides import typed_for
from ..exit import user_error
from ..exit.codes import ConfigError

KEY = "run.imports"


class NotImported(ConfigError):  # noqa: N818 - an answer to what was typed
    """A module of run.imports cannot be imported."""


def import_modules(names: Iterable[Any]) -> None:
    """Import each. Raises NotImported. Only for names that the user typed, or wrote into a config of their own."""
    for name in names:
        try:
            import_module(name)
        except Exception as error:  # whatever the user's own module raises
            raise NotImported(_message(str(name), error)) from None


def imports_of(cfg: Any) -> list[str]:
    """What a composed config asks for; nothing where that is no list of texts, which the schema refuses later."""
    try:
        found = OmegaConf.select(cfg, KEY)
    except OmegaConfBaseException:  # it is an interpolation, which is told of when the config is resolved
        return []
    return [name for name in found if isinstance(name, str)] if OmegaConf.is_list(found) else []


def typed_imports(cfg: Any, words: Sequence[str]) -> list[str]:
    """The same, where `words` set the key: a config that came with a run has no say in it."""
    return [] if typed_for(KEY, words) is None else imports_of(cfg)


def _message(name: str, error: Exception) -> str:
    line = user_error.own_line(error)
    at = f" at {line}" if line else ""
    if isinstance(error, ModuleNotFoundError) and f"{name}.".startswith(f"{error.name}."):
        return f"{KEY} names {name}, and there is no module {error.name}. Install it, or put its folder on PYTHONPATH"
    said = " ".join(user_error.message(error).split())
    return f"{KEY} names {name}, and importing it fails{at}: {said}. Mend it, or leave it out of {KEY}"

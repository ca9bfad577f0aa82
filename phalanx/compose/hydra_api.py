"""Compose configs by Hydra without running a job, so no Hydra callback or logging config takes effect."""

import copy
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import hydra.version
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from hydra.errors import ConfigCompositionException, HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException, UnsupportedInterpolationType

from ..common.escaping import without_resolvers
from ..config.overrides import node_of, nodes_apart
from ..exit.codes import ConfigError
from .user_imports import KEY, import_modules, imports_of, typed_imports
from .yaml_source import install_yaml_source

CONF = Path(__file__).resolve().parents[1] / "conf"
PRIMARY = "config"
NOT_COMPOSED = (HydraException, OmegaConfBaseException, UserWarning, ValueError)  # Hydra raises all of them for users
_State = tuple[tuple[str, int, int], ...]  # path, mtime and size of each file


class Composition(NamedTuple):
    """A composed config, its interpolations resolved, and the selected option of each group."""

    plain: dict[str, Any]
    choices: Mapping[str, str | None]


class Composer(Protocol):
    """Composes words. Without `resolve` interpolations are left as text."""

    def __call__(self, words: Sequence[str], *, resolve: bool = True) -> Composition: ...


class NotFollowed(ConfigError):  # noqa: N818 - an answer to what a stored config holds
    """A config that came with a run's folder would look something up, or have further configs read."""


def is_foreign(config_name: str | None) -> bool:
    """Whether another primary config than ours is named, such as the one that came with a run's folder."""
    return config_name not in (None, PRIMARY)


@contextmanager
def hydra_composer(config_dir: str | None, config_name: str | None) -> Iterator[Composer]:
    """A function that composes overrides over conf/ and `config_dir`, and raises one of NOT_COMPOSED.

    In a foreign config no resolver is evaluated, and it may not extend the search path.
    """
    hydra.version.setbase("1.3")
    install_yaml_source()
    search_path = create_config_search_path(str(CONF))
    if config_dir is not None:
        folder = Path(config_dir).absolute()
        if not folder.is_dir():
            raise ConfigError(f"--config-dir={config_dir}: there is no folder {folder}. Type an existing one")
        search_path.prepend("command-line", f"file://{folder}", SearchPathQuery(provider="schema"))
    engine = Hydra.create_main_hydra2("phalanx", search_path)
    own = not is_foreign(config_name) and {at.provider for at in search_path.get_path()} <= {"hydra", "main", "schema"}

    def composer(words: Sequence[str], *, resolve: bool = True) -> Composition:
        with warnings.catch_warnings(), _without_lookups(engine, config_name):
            warnings.filterwarnings("error", "provider=.* is not available")
            others, nodes = nodes_apart(words)
            try:
                if own and not any(map(_asks_for_more, words)):
                    cfg, choices = _compose_own(others)
                else:
                    cfg, choices = _compose(engine, config_name, others)
            except TypeError as error:  # such as for optim=[1], of which Hydra takes each for the name of a file
                raise HydraException(str(error)) from None
            ConfigLoaderImpl._apply_overrides_to_config(_replacing(nodes, cfg), cfg)
            if not is_foreign(config_name):
                import_modules(imports_of(cfg))
            plain = OmegaConf.to_container(cfg, resolve=resolve)
        assert isinstance(plain, dict)
        if is_foreign(config_name):  # now, for none of their resolvers may look anything up in it
            import_modules(typed_imports(cfg, words))
        return Composition({str(key): value for key, value in plain.items()}, choices)

    try:
        yield composer
    finally:
        GlobalHydra.instance().clear()


def _asks_for_more(word: str) -> bool:
    """Whether `word` may ask for other files than those of conf/, or refer to Hydra's own section."""
    return "hydra" in word or KEY in word


def _compose(engine: Hydra, config_name: str | None, words: Sequence[str]) -> tuple[DictConfig, dict[str, str | None]]:
    """The config without Hydra's own section, which ${hydra:…} looks up, and the option of each group."""
    cfg = engine.compose_config(config_name or PRIMARY, list(words), RunMode.RUN, from_shell=False)
    HydraConfig.instance().set_config(cfg)
    choices = {str(group): option for group, option in cfg.hydra.runtime.choices.items()}
    job = OmegaConf.masked_copy(cfg, [name for name in cfg if name != "hydra"])  # type: ignore[misc] # a key may be a number, too
    return job, choices


def _compose_own(words: Sequence[str]) -> tuple[DictConfig, Mapping[str, str | None]]:
    """The config of `words` over conf/ alone, without Hydra's own section, and the option of each group.

    Only for words in which nothing refers to that section. Files are merged once a process for each choice of groups,
    which is nine tenths of the time that Hydra takes to compose. Raises what Hydra raises.
    """
    loader = ConfigLoaderImpl(create_config_search_path(str(CONF)))
    parsed = OverridesParser.create().parse_overrides(list(words))
    loader.validate_sweep_overrides_legal(parsed, RunMode.RUN, from_shell=False)
    has_group = loader.repository.group_exists
    values = [word for word in parsed if isinstance(word.value(), dict) or not has_group(word.key_or_group)]
    groups = tuple(str(word.input_line) for word in parsed if word not in values)
    merged, choices = _merged(groups, _state())
    config = copy.deepcopy(merged)
    try:
        ConfigLoaderImpl._apply_overrides_to_config(values, config)
    except OmegaConfBaseException as error:
        raise ConfigCompositionException from error
    return config, choices


@lru_cache(maxsize=64)
def _merged(groups: tuple[str, ...], _state: _State) -> tuple[DictConfig, Mapping[str, str | None]]:
    """What the files of the chosen `groups` hold, cached as long as all of conf/ stays as it is."""
    loader = ConfigLoaderImpl(create_config_search_path(str(CONF)))
    config = loader.load_configuration(PRIMARY, list(groups), RunMode.RUN, from_shell=False)
    choices = {str(group): option for group, option in config.hydra.runtime.choices.items()}
    with open_dict(config):
        del config["hydra"]
    return config, choices


def _state() -> _State:
    entries = [entry for folder, _, _ in os.walk(CONF) for entry in os.scandir(folder)]
    return tuple(sorted((entry.path, entry.stat().st_mtime_ns, entry.stat().st_size) for entry in entries))


def _replacing(words: Sequence[Override], cfg: DictConfig) -> list[Override]:
    """The overrides of whole nodes and of their keys. A node with another target takes the place of what is in `cfg`.

    Hydra would merge it with the arguments of the other class. What is typed of its keys beside holds, before or after.
    """
    taken: dict[str, tuple[int, dict[Any, Any]]] = {}
    for i, word in enumerate(words):
        value, there = node_of(word), OmegaConf.select(cfg, word.key_or_group, throw_on_missing=False)
        for name, node in _taken(value, there, word.key_or_group) if value is not None else ():
            taken[name] = (i, node)
    first = {i for i, _ in taken.values()}
    for name in taken:
        OmegaConf.update(cfg, name, {}, merge=False)
    for word in words:
        there = OmegaConf.select(cfg, word.key_or_group, throw_on_missing=False)
        if "_target_" in (node_of(word) or ()) and isinstance(there, DictConfig) and "_target_" in there:
            _forced(word)  # its arguments may be others than those that are there
    last = [word for i, word in enumerate(words) if i not in first and _holds(word, i, taken)]
    return [*(_forced(words[i]) for i in sorted(first)), *last]


def _taken(value: dict[Any, Any], there: Any, name: str) -> Iterator[tuple[str, dict[Any, Any]]]:
    """The nodes of `value` that name another target than what is `there`, or several in the place of one."""
    if not isinstance(there, DictConfig):
        return
    target, several = (
        value.get("_target_"),
        [isinstance(child, dict) and "_target_" in child for child in value.values()],
    )
    if target is not None or ("_target_" in there and value and all(several)):
        if there.get("_target_", target) != target:
            yield name, value
        return
    for key, child in value.items():
        if isinstance(child, dict) and key in there:
            yield from _taken(child, there[key], f"{name}.{key}")


def _holds(word: Override, i: int, taken: Mapping[str, tuple[int, dict[Any, Any]]]) -> bool:
    """Whether a word beside nodes that took others' places says something: not if a later one has the same key."""
    for name, (place, node) in taken.items():
        if word.key_or_group.startswith(f"{name}."):
            _forced(word)
            key = word.key_or_group[len(name) + 1 :].partition(".")[0]
            return not word.is_delete() and not (i < place and key in node)
    return True


def _forced(word: Override) -> Override:
    if not word.is_delete():
        word.type = OverrideType.FORCE_ADD
    return word


@contextmanager
def _without_lookups(engine: Hydra, config_name: str | None) -> Iterator[None]:
    """Raise ConfigError if a foreign config uses a resolver, or extends the search path."""
    if config_name is None or not is_foreign(config_name):
        yield
        return
    try:
        with without_resolvers():
            found = engine.config_loader.repository.load_config(config_name)  # type: ignore[attr-defined]
            if found is not None and OmegaConf.select(found.config, "hydra.searchpath") is not None:
                raise NotFollowed(
                    f"hydra.searchpath in --config-name={config_name} would have further configs read, which is for who "
                    "types the command to say. Type 'hydra.searchpath=[…]' if you trust them"
                )
            yield
    except UnsupportedInterpolationType as error:
        key = str(error.full_key).partition("[")[0]
        raise NotFollowed(
            f"{key} in --config-name={config_name} would look something up: {str(error).splitlines()[0]}. In a config that "
            f"came with a run's folder nothing is. Type {key}=… with its value"
        ) from None

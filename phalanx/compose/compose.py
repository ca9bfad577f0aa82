"""Compose the Config of a command line: Hydra composes, the schema checks, and errors become one ConfigError."""

import argparse
import os
import shlex
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

from hydra._internal.utils import _run_hydra, get_args_parser
from omegaconf import DictConfig, OmegaConf

from ..common.escaping import without_resolvers
from ..common.redaction import REDACTED
from ..config.check import text_keys, to_config
from ..config.overrides import key, verbatim, with_own_names
from ..config.run_root import folder_of_runs
from ..config.schema import Config, as_plain
from ..exit.codes import ConfigError
from ..run_folder import names
from .digest import digest
from .former_digests import former_digests
from .hydra_api import CONF, NOT_COMPOSED, PRIMARY, Composer, Composition, NotFollowed, hydra_composer, is_foreign
from .hydra_errors import explain, options
from .resolved import migrate, missing_keys, redacted_keys
from .stored_config import reset_run_settings
from .user_imports import NotImported


@dataclass(frozen=True)
class Composed:
    """A typed config, and the same as plain data.

    `foreign`: another primary config than conf/config.yaml was named, such as a run folder's (--config-name resolved), so
    the classes that it names are only trusted as run.trust says. `notes` tell what became of keys of another version.
    """

    config: Config
    plain: Mapping[str, Any]
    foreign: bool
    notes: Sequence[str] = ()


def composed_of(plain: Mapping[str, Any], foreign: bool) -> Composed:
    """A Composed from the plain data of an earlier one."""
    return Composed(to_config(plain), plain, foreign)


def multirun(argv: Sequence[str]) -> list[str] | None:
    """The other words of a command line that has Hydra's -m, which asks for a sweep; None where it has not."""
    words = [word for word in argv if word not in ("-m", "--multirun")]
    return words if len(words) < len(argv) else None


def is_query(argv: Sequence[str]) -> bool:
    """Whether `argv` asks Hydra to show something, as --help, --cfg and tab completion do. Raises ConfigError."""
    flags = _flags(argv)
    return bool(flags.help or flags.hydra_help or flags.cfg or flags.info or flags.shell_completion)


def print_answer(argv: Sequence[str]) -> None:
    """Print what `argv` asks for. Raises ConfigError."""
    flags = _flags(argv)
    if flags.help and _foreign(flags):
        raise ConfigError("--help obeys what a config says about logging, so it takes none but its own. Type --cfg job")
    if flags.hydra_help:
        flags.overrides = []  # it is about Hydra's own config
    elif not flags.shell_completion:
        composition = _composed(flags, flags.overrides, resolve=flags.resolve)
        if flags.cfg == "job" and not _foreign(flags):
            return _print_job(composition.plain, flags.package)
    try:
        with without_resolvers() if _foreign(flags) else nullcontext():
            _run_hydra(flags, get_args_parser(), lambda cfg: None, str(CONF), PRIMARY)
    except NOT_COMPOSED as error:
        raise ConfigError(f"{' '.join(str(error).split())}. Type --help to see what there is") from None


def _print_job(plain: Mapping[str, Any], package: str | None) -> None:
    """As Hydra prints it, which knows no nodes that are typed as a whole. Raises ConfigError."""
    node = plain if package is None else OmegaConf.select(OmegaConf.create(dict(plain)), package)
    if not isinstance(node, Mapping | DictConfig):
        raise ConfigError(f"--package={package}: there is no such node. Type --cfg job to see all")
    print(*([] if package is None else [f"# @package {package}"]), OmegaConf.to_yaml(node), sep="\n")


def choices(group: str, argv: Sequence[str]) -> list[str]:
    """The options of a config group, with Hydra's flags of `argv`. Raises ConfigError."""
    flags = _flags(argv)
    with hydra_composer(flags.config_dir, flags.config_name) as composer:
        return options(group, [], composer)


def chosen_option(group: str, argv: Sequence[str]) -> str | None:
    """The option of a config group that `argv` selects. Raises ConfigError."""
    flags = _flags(argv)
    return _composed(flags, flags.overrides).choices.get(group)


def compose(argv: Sequence[str]) -> Composed:
    """Compose the config of the command line `argv` (without the program's name). Raises ConfigError."""
    flags = _flags(argv)
    foreign = _foreign(flags)
    found = _composed(flags, verbatim(flags.overrides, text_keys()))
    plain, notes = found.plain, list[str]()
    if foreign:
        plain, notes = migrate(plain, [key(word) for word in flags.overrides])
        plain = reset_run_settings(plain, flags.config_dir, flags.config_name, flags.overrides)
    elif flags.config_dir is not None and (Path(flags.config_dir) / f"{PRIMARY}.yaml").is_file():
        notes.append(
            f"{flags.config_dir}/{PRIMARY}.yaml is not read: the primary config is Phalanx's own. What is set there goes "
            f"into {flags.config_dir}/experiment/NAME.yaml, and experiment=NAME chooses it"
        )
    _refuse_hidden(plain)
    config = to_config(plain, flags.overrides)
    if config.run.name is None:
        experiment = (found.choices.get("experiment") or "run").replace("/", "-")
        config = replace(config, run=replace(config.run, name=_name(config, experiment)))
    return Composed(config, as_plain(config), foreign, notes)


def _name(config: Config, experiment: str) -> str:
    """The run's name by its digest, or the name under which an earlier version began it. Raises ConfigError."""
    name, root = f"{experiment}-{digest(config)[:8]}", folder_of_runs(config.run.root)
    before = [f"{experiment}-{known[:8]}" for known in former_digests(config)]
    former = next((known for known in before if os.path.isfile(root / known / names.RESOLVED)), None)
    if former is None or os.path.lexists(root / name):
        return name
    if REDACTED in (root / former / names.RESOLVED).read_text(encoding="utf-8", errors="replace"):
        raise ConfigError(
            f"{root / former} is a run of this config or of one that differs where an earlier version wrote {REDACTED}. "
            f"Type run.name={former} to continue it, or run.name={name} for another run"
        )
    return former


def _refuse_hidden(plain: Mapping[str, Any]) -> None:
    """Raise ConfigError for redacted values of a stored config, except in `sweep`, which a run does not use."""
    for name in redacted_keys(plain):
        if not name.startswith("sweep."):
            raise ConfigError(
                f"{name} is {REDACTED}, which is written in place of a secret, so nobody can tell what it was. "
                f"Type {name}=… with its value"
            )


def _flags(argv: Sequence[str]) -> argparse.Namespace:
    """Parse by Hydra's parser, and refuse what does not work with ranks or is not safe. Raises ConfigError."""
    parser = get_args_parser()

    def refuse(message: str) -> NoReturn:
        dashed = next((word for word in argv if word.startswith("--") and word in message), None)
        if dashed is not None and message.startswith("unrecognized"):
            known = f"{dashed.lstrip('-').partition('=')[0].replace('-', '_')}="
            raise ConfigError(f"{message}. Keys of the config have no dashes before them: type {known}…, or --help")
        raise ConfigError(f"{message}. Type --help to see what there is")

    parser.error = refuse  # type: ignore[method-assign]
    flags = parser.parse_intermixed_args(list(argv))
    if flags.multirun:
        _refuse_sweep("-m (multirun)", multirun(argv) or [])
    if flags.experimental_rerun is not None:
        raise ConfigError(
            "--experimental-rerun runs whatever a pickle says. Type --config-dir=RUN --config-name=resolved"
        )
    if flags.config_path is not None:
        raise ConfigError(
            f"--config-path={flags.config_path} would take the place of conf/, where the defaults are. "
            f"Type --config-dir={flags.config_path} to add your folder to it"
        )
    for word in flags.overrides:
        _refuse_hydra_key(word, flags.overrides)
    return flags


def _refuse_hydra_key(word: str, words: Sequence[str]) -> None:
    """Refuse Hydra's own settings except the search path: Hydra only composes here."""
    name = key(word)
    if name in ("hydra.mode", "hydra/sweeper", "hydra/launcher"):
        _refuse_sweep(word, [other for other in words if other != word])
    if name.startswith(("hydra.", "hydra/")) and name != "hydra.searchpath":
        raise ConfigError(f"{word} would have no effect: Hydra composes the config here and runs nothing. Leave it out")


def _foreign(flags: argparse.Namespace) -> bool:
    return is_foreign(flags.config_name)


def _composed(flags: argparse.Namespace, words: Sequence[str], *, resolve: bool = True) -> Composition:
    words = with_own_names(words)
    with hydra_composer(flags.config_dir, flags.config_name) as composer:
        try:
            found = composer(_forced(words, composer) if _foreign(flags) else words, resolve=resolve)
        except (NotImported, NotFollowed):
            raise
        except NOT_COMPOSED as error:
            raise ConfigError(explain(error, words, composer)) from None
    if flags.config_dir is not None:
        _refuse_unread(Path(flags.config_dir), found.choices)
    return found


def _refuse_unread(folder: Path, choices: Mapping[str, str | None]) -> None:
    """Raise ConfigError for a chosen option that both `folder` and conf/ have, as Hydra reads the one of conf/."""
    for group, option in choices.items():
        own, ours = (at / group / f"{option}.yaml" for at in (folder, CONF))
        if ours.is_file() and own.is_file() and own.read_bytes() != ours.read_bytes():
            raise ConfigError(
                f"{group}={option} is an option of Phalanx's own, which comes first, so {own} would not be read. Give that "
                f"file another name, and choose {group} by it"
            )


def _forced(words: Sequence[str], composer: Composer) -> list[str]:
    """The words, with ++ for keys of this version that an older stored config lacks."""
    later = missing_keys(composer([], resolve=False).plain)
    return [f"++{word}" if key(word) in later and word[:1] not in "+~" else word for word in words]


def _refuse_sweep(what: str, words: Sequence[str]) -> NoReturn:
    raise ConfigError(
        f"{what} would run every point inside this one process, and under torchrun every rank would draw its own. Type "
        f"{shlex.join(['phalanx', 'sweep', *words])}, with sweep.ranks=… for more than one rank a point"
    )

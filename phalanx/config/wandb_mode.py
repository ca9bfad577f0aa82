"""Resolve the W&B mode from config, variables, settings file and netrc, without a prompt."""

import configparser
import netrc
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Literal, cast, get_args
from urllib.parse import urlsplit

from ..exit.codes import ConfigError

Mode = Literal["online", "offline", "disabled"]

# One service, whose default name depends on the version of wandb.
CLOUD_HOSTS = ("api.wandb.ai", "api.forge.coreweave.com")
OLD_NAMES = {"run": "online", "dryrun": "offline"}


def resolve_mode(asked: str, environ: Mapping[str, str], netrc_path: Path | None = None) -> Mode:
    """What `asked` ("auto" or a mode) means here: "auto" is the mode W&B is set to, else online if there is a key.

    A key is WANDB_API_KEY or WANDB_IDENTITY_TOKEN_FILE, one in W&B's settings file, or an entry for its server in
    `netrc_path` (by default where `environ` has it). Raises ConfigError for any other mode.
    """
    if asked != "auto":
        return _mode("wandb.mode", asked)
    settings = settings_file(environ)
    if environ.get("WANDB_MODE"):
        return _mode("WANDB_MODE", environ["WANDB_MODE"])
    if "mode" in settings:
        return _mode("mode in the settings file of W&B", settings["mode"])
    server = environ.get("WANDB_BASE_URL") or settings.get("base_url") or f"https://{CLOUD_HOSTS[0]}"
    keys = (environ.get("WANDB_API_KEY"), environ.get("WANDB_IDENTITY_TOKEN_FILE"), settings.get("api_key"))
    return "online" if any(keys) or _knows(netrc_path or _netrc_path(environ), urlsplit(server).netloc) else "offline"


def _mode(where: str, value: str) -> Mode:
    mode = OLD_NAMES.get(value, value)
    if mode not in get_args(Mode):
        raise ConfigError(f"{where} is {value!r}. Choose one of: auto, {', '.join(get_args(Mode))}")
    return cast(Mode, mode)


def settings_file(environ: Mapping[str, str]) -> Mapping[str, str]:
    """What W&B's own file of settings says."""
    folder = Path(environ["WANDB_CONFIG_DIR"]) if "WANDB_CONFIG_DIR" in environ else _home(environ) / ".config/wandb"
    parser = configparser.ConfigParser(interpolation=None)
    with suppress(configparser.Error, OSError, UnicodeDecodeError):
        parser.read(Path(os.path.expanduser(folder)) / "settings")
    return dict(parser["default"]) if "default" in parser else {}


def _knows(path: Path, host: str) -> bool:
    """Whether a netrc file has an entry for this host; a default entry does not count."""
    hosts = CLOUD_HOSTS if host in CLOUD_HOSTS else (host,)
    with suppress(netrc.NetrcParseError, OSError, UnicodeDecodeError):
        return any(host in netrc.netrc(path).hosts for host in hosts)
    return False


def _netrc_path(environ: Mapping[str, str]) -> Path:
    return Path(os.path.expanduser(environ["NETRC"])) if environ.get("NETRC") else _home(environ) / ".netrc"


def _home(environ: Mapping[str, str]) -> Path:
    """The home folder; a path that does not exist if the user has none, as in some containers."""
    return Path(environ.get("HOME") or os.path.expanduser("~"))

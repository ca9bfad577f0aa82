"""What an exception of a target's call means: a ConfigError where the config is at fault, or the exception as it is."""

import errno
import re
from collections.abc import Collection
from urllib.error import URLError

from ..exit import user_error
from ..exit.codes import ConfigError

_LACKING = re.compile(r"missing \d+ required .*?argument.*?: '(\w+)'")
_UNEXPECTED = re.compile(r"unexpected keyword argument '(\w+)'")
_REFUSALS = (RuntimeError, LookupError, AssertionError)  # what libraries raise for arguments that they do not know
_NETWORKS = ("aiohttp", "httpcore", "httpx", "huggingface_hub", "requests", "urllib3")  # whose errors are of a download
_NOT_HERE = {None, errno.ENOENT, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EISDIR}  # not there, or not readable


def explained(
    error: Exception, where: str, target: str, names: Collection[str], *, refused: bool, takes_any: bool
) -> ConfigError | None:
    """The message for an exception of the call that builds `where`; None where it is a bug in what was called.

    `names` are the arguments of the config; `refused`: the call itself was refused, as its arguments do not fit;
    `takes_any`: it takes arguments of any name, so that what it calls with them refuses them.
    """
    said = f"{target} says: {_line(error)}{_at(error)}"
    if _is_download(error):
        return ConfigError(
            f"{where} cannot be built: {target} could not fetch what it needs: {_line(error)}. "
            "Fetch it on a machine that has a network, or leave out the argument that asks for it"
        )
    if isinstance(error, TypeError):
        found = _UNEXPECTED.search(str(error))
        if found is not None and found[1] in names:
            return ConfigError(f"{where}.{found[1]} is not taken: {said}. Leave it out, or type a name that is")
        if (found := _LACKING.search(str(error))) is not None and takes_any and found[1] not in names:
            return ConfigError(f"{where}.{found[1]} is not set: {said}. Type +{where}.{found[1]}=… with its value")
        return ConfigError(f"{where} cannot be built: {said}") if refused else None
    if isinstance(error, ImportError):
        return ConfigError(f"{where} cannot be built: {said}. Install what it needs")
    if isinstance(error, ValueError) or (isinstance(error, OSError) and error.errno in _NOT_HERE):
        return ConfigError(f"{where} cannot be built: {said}")
    if isinstance(error, _REFUSALS) and "memory" not in str(error) and user_error.is_of_library(error):
        return ConfigError(f"{where} cannot be built: {target} says: {type(error).__name__}: {_line(error)}")
    if isinstance(error, RuntimeError) and "negative dimension" in str(error):  # what torch says of a size below zero
        return ConfigError(f"{where} cannot be built: {target} got a negative size: {_line(error)}")
    return None


def _is_download(error: BaseException) -> bool:
    """Also where a library says it in an exception of its own, of which the network's is the cause."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, URLError) or any(
            base.__module__.partition(".")[0] in _NETWORKS for base in type(seen).__mro__
        ):
            return True
        seen = seen.__cause__ or (None if seen.__suppress_context__ else seen.__context__)
    return False


def _line(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__


def _at(error: Exception) -> str:
    line = user_error.own_line(error)
    return f" ({line})" if line else ""

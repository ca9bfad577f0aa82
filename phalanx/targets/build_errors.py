"""What an exception of a target's call means: a ConfigError where the config is at fault, or the exception as it is."""

import errno
import re
from collections.abc import Mapping
from typing import Any
from urllib.error import URLError

from ..config.overrides import shown
from ..exit import user_error
from ..exit.codes import ConfigError

_LACKING = re.compile(r"missing \d+ required .*?argument.*?: '(\w+)'")
_UNEXPECTED = re.compile(r"unexpected keyword argument '(\w+)'")
_MISUSED = re.compile(
    r"'(?P<kind>\w+)' object is not (?P<need>callable|iterable|subscriptable)|type '(?P<sized>\w+)' has no len"
    r"|should be a (?P<function>function), but got (?P<got>\w+)"
)
_REFUSALS = (RuntimeError, LookupError, AssertionError)  # what libraries raise for arguments that they do not know
_MISUSES = (TypeError, AttributeError, LookupError, ArithmeticError, AssertionError)  # what torch, too, raises for them
_OF_MACHINES = re.compile("memory|CUDA|cuda|NCCL|cuDNN|HIP")
_NETWORKS = ("aiohttp", "httpcore", "httpx", "huggingface_hub", "requests", "urllib3")  # whose errors are of a download
_NOT_HERE = {None, errno.ENOENT, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EISDIR}  # not there, or not readable


def explained(
    error: Exception, where: str, target: str, keywords: Mapping[str, Any], *, refused: bool, takes_any: bool
) -> ConfigError | None:
    """The message for an exception of the call that builds `where`; None where it is a bug in what was called.

    `keywords` are the arguments of the config; `refused`: the call itself was refused, as its arguments do not fit;
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
        if found is not None and found[1] in keywords:
            return ConfigError(f"{where}.{found[1]} is not taken: {said}. Leave it out, or type a name that is")
        if (found := _LACKING.search(str(error))) is not None and takes_any and found[1] not in keywords:
            return ConfigError(f"{where}.{found[1]} is not set: {said}. Type +{where}.{found[1]}=… with its value")
        if refused:
            return ConfigError(f"{where} cannot be built: {said}")
    if isinstance(error, ImportError):
        return ConfigError(f"{where} cannot be built: {said}. Install what it needs")
    if isinstance(error, ValueError) or (isinstance(error, OSError) and error.errno in _NOT_HERE):
        return ConfigError(f"{where} cannot be built: {said}")
    if isinstance(error, _REFUSALS) and "memory" not in str(error) and user_error.is_of_library(error):
        return ConfigError(f"{where} cannot be built: {target} says: {type(error).__name__}: {_line(error)}")
    if isinstance(error, RuntimeError) and "negative dimension" in str(error):  # what torch says of a size below zero
        return ConfigError(f"{where} cannot be built: {target} got a negative size: {_line(error)}")
    ours = isinstance(error, _MISUSES) or (isinstance(error, RuntimeError) and not _OF_MACHINES.search(str(error)))
    if ours and user_error.is_below_call(error):
        return _misused(error, where, target, keywords)
    return None


def _misused(error: Exception, where: str, target: str, keywords: Mapping[str, Any]) -> ConfigError:
    """Names the argument, where what the library says of it tells which one it is."""
    said = f"{target} says: {type(error).__name__}: {_line(error)}"
    found = _MISUSED.search(str(error))
    kind = found and (found["kind"] or found["sized"] or found["got"])
    blamed = [name for name, value in keywords.items() if kind in _kinds(value)]
    if found is None or len(blamed) != 1:
        typed = ", ".join(f"{where}.{name}={shown(value)}" for name, value in keywords.items())
        return ConfigError(f"{where} cannot be built: {said}. Type another value for one of its arguments: {typed}")
    key, calls = f"{where}.{blamed[0]}", found["need"] == "callable" or found["function"]
    fits = "{_target_: mypkg.module.function, _partial_: true}" if calls else "[1, 2]"
    what = "a function there" if calls else "a list there"
    return ConfigError(
        f"{key}={shown(keywords[blamed[0]])} does not fit: {target} takes {what} ({_line(error)}). Type {key}={fits}"
    )


def _kinds(value: Any) -> set[str]:
    """The names of the types of a value, and of what a list holds."""
    return {type(value).__name__, *(type(each).__name__ for each in (value if isinstance(value, list | tuple) else ()))}


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

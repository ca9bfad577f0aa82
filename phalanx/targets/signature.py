"""Check that a function of the user's takes what it is called with, before a TypeError would show none of their lines."""

import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any

from ..exit import user_error
from ..exit.codes import ConfigError


def check_signature(function: Callable[..., Any], *arguments: str, named: Collection[str] = ()) -> None:
    """Raise ConfigError, which tells where the function or method stands, unless it can be called with `arguments`.

    `named` are further ones, which it is given by their names.
    """
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # written in C, or one that makes up its own
        return
    try:
        signature.bind(*arguments, **dict.fromkeys(named))
    except TypeError as error:
        plain = function.func if isinstance(function, partial) else function
        name = getattr(plain, "__qualname__", type(plain).__name__)
        place = user_error.place_of(plain)
        own = ["self"] if inspect.ismethod(plain) else []
        raise ConfigError(
            f"{name} is called with ({', '.join(arguments)}) and takes ({', '.join(signature.parameters)}): {error}"
            f"{'' if place is None else f', at {place}'}. Write def {name.rpartition('.')[2]}"
            f"({', '.join([*own, *arguments, *named])})"
        ) from None


def check_call(function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any], whose: str) -> None:
    """Raise ConfigError, which tells where the function or method stands, unless it takes these arguments.

    `whose` says where they come from, such as "ratios() returned Update(…)".
    """
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return
    try:
        signature.bind(*args, **kwargs)
    except TypeError as error:
        name = getattr(function, "__qualname__", type(function).__name__)
        place = user_error.place_of(function)
        given = ", ".join([type(value).__name__ for value in args] + [f"{key}=…" for key in kwargs])
        raise ConfigError(
            f"{name} takes ({', '.join(signature.parameters)}){'' if place is None else f', at {place}'}, and {whose} "
            f"({given}): {error}. Pass what it takes, or write another def {name.rpartition('.')[2]} there"
        ) from None

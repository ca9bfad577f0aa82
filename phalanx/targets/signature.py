"""Check that a function of the user's takes what it is called with, before a TypeError would show none of their lines."""

import inspect
from collections.abc import Callable, Collection
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

"""Optimizers of torch's without torch._dynamo, whose import takes a second of each start's processor time.

They import it to keep torch.compile off themselves, also where nothing is compiled. Until something else imports it
nothing can be, and each does what it would do then, less the import. From then on they are as torch has made them.
"""

import importlib.abc
import sys
from collections.abc import Callable
from functools import partial
from types import CodeType, FunctionType
from typing import Any

import torch

_DYNAMO = "torch._dynamo"
_CALLED_INSTEAD = "__dynamo_disable"  # of a function: what torch calls in its place, which it keeps there
# The names by which torch's code does what ours does. A version's that uses others is left alone.
_DISABLED_USES = {"getattr", _DYNAMO, "_dynamo", "disable", _CALLED_INSTEAD}
_STEP_USES = {"cast", "Optimizer", "is_grad_enabled", "set_grad_enabled", "defaults", _DYNAMO, "_dynamo", "graph_break"}


class _Undo(importlib.abc.MetaPathFinder):
    """Finds no module, and is asked first: `undo` what was changed as soon as somebody imports torch._dynamo."""

    def __init__(self) -> None:
        self.undo: list[Callable[[], None]] = []

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> None:
        if fullname == _DYNAMO:
            while self.undo:
                self.undo.pop()()


def defer_dynamo() -> None:
    """Have torch's optimizers leave torch._dynamo to who compiles. Does nothing where it is imported already."""
    if _DYNAMO in sys.modules:
        return
    disabled = _code_of("torch._compile", "_disable_dynamo", "inner", _DISABLED_USES)
    step = _code_of("torch.optim.optimizer", "_use_grad_for_differentiable", "_use_grad", _STEP_USES)
    ours = _grad_for_differentiable(id).__code__
    finder = _Undo()
    sys.meta_path.insert(0, finder)  # for good, as a list that somebody goes through may not get shorter
    for function in _methods():
        if function.__code__ is disabled:
            wrapped: Any = function.__wrapped__  # type: ignore[attr-defined]
            if _CALLED_INSTEAD not in vars(wrapped):
                setattr(wrapped, _CALLED_INSTEAD, wrapped)
                finder.undo.append(partial(delattr, wrapped, _CALLED_INSTEAD))
        elif function.__code__ is step and step.co_freevars == ours.co_freevars:
            function.__code__ = ours
            finder.undo.append(partial(setattr, function, "__code__", step))


def _code_of(module: str, maker: str, name: str, uses: set[str]) -> CodeType | None:
    """The code of the functions called `name` that `maker` makes, which they share; None where it uses other names."""
    found = getattr(getattr(sys.modules.get(module), maker, None), "__code__", None)
    within = [code for code in found.co_consts if isinstance(code, CodeType)] if found is not None else []
    return next((code for code in within if code.co_name == name and {*code.co_names} == uses), None)


def _methods() -> set[FunctionType]:
    """Those of torch's optimizers. None was made yet in this process: the first one imports torch._dynamo."""
    classes = [found for found in vars(torch.optim).values() if isinstance(found, type)]
    return {method for found in classes for method in vars(found).values() if isinstance(method, FunctionType)}


def _grad_for_differentiable(func: Callable[..., Any]) -> Callable[..., Any]:
    def _use_grad(*args: Any, **kwargs: Any) -> Any:  # its names are those of torch.optim.optimizer
        before = torch.is_grad_enabled()
        try:
            torch.set_grad_enabled(args[0].defaults["differentiable"])
            return func(*args, **kwargs)
        finally:
            torch.set_grad_enabled(before)

    return _use_grad

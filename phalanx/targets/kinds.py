"""Whether an object is what its key expects, and whether a class can give that at all."""

import types
from collections.abc import Callable, Mapping
from typing import Any

Kinds = tuple[type, ...]
_DATASET = "torch.utils.data.dataset.Dataset"
_MODULE = "torch.nn.modules.module.Module"  # a Sequential has a length and items, which are no samples
_LOADER = "torch.utils.data.dataloader.DataLoader"
CALLABLE: Any = Callable


def is_made(value: Any, kinds: Kinds) -> bool:
    """Whether `value` is of one of the kinds. A data set is also what has a length and samples by index, or is a stream."""
    return isinstance(value, kinds) or (_takes_data(kinds) and _is_data(type(value)))


def cannot_make(found: Any, kinds: Kinds) -> bool:
    """Whether `found` is a class whose instances are certainly of none of the kinds."""
    if not isinstance(found, type) or issubclass(found, kinds) or (_takes_data(kinds) and _is_data(found)):
        return False
    decides_itself = type(found).__call__ is not type.__call__ or isinstance(found.__new__, types.FunctionType)
    return not decides_itself  # such a class may return something else


def wants_callable(kinds: Kinds) -> bool:
    """Whether what is wanted is to be called later, as a collate function is, so that _partial_ makes it."""
    return CALLABLE in kinds


def names(kinds: Kinds) -> str:
    return " or ".join(kind.__name__ for kind in kinds)


def namesake(found: Any, kinds: Kinds) -> str:
    """What to add where the class `found` is derived from another of the same name, as torch's samplers are; else ""."""
    alike = {kind.__name__: kind for kind in kinds}
    base = next((base for base in found.__mro__ if base.__name__ in alike), None)
    if base is None:
        return ""
    wanted = alike[base.__name__]
    return f" of {wanted.__module__.partition('.')[0]}, but from that of {base.__module__.partition('.')[0]}"


def described(value: Any) -> str:
    """What came back, in a few words."""
    if value is None:
        return "None"
    if isinstance(value, type):
        return f"the class {value.__name__}"
    kind = type(value).__name__
    article = "an" if kind[0] in "aeiouAEIOU" else "a"
    if isinstance(value, Mapping):
        return f"{article} {kind} with the keys {', '.join(map(str, list(value)[:8])) or '(none)'}"
    return f"{article} {kind}"


def _takes_data(kinds: Kinds) -> bool:
    return any(_named(kind) == _DATASET for kind in kinds)


def _is_data(found: type) -> bool:
    if issubclass(found, str | bytes | Mapping) or any(_named(base) == _MODULE for base in found.__mro__):
        return False
    if hasattr(found, "__len__") and hasattr(found, "__getitem__"):
        return True
    # An iterator is used up after one pass. A DataLoader makes batches, which is done here.
    return hasattr(found, "__iter__") and not hasattr(found, "__next__") and _named(found) != _LOADER


def _named(kind: type) -> str:
    """torch is not imported to compare by it."""
    return f"{kind.__module__}.{kind.__qualname__}"

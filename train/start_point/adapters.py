"""Weights of adapters alone, as peft saves them: the base model's are not in the file."""

from collections.abc import Mapping
from typing import Any

import torch

_SAVED_WHOLE = "modules_to_save"  # peft's module around a layer that trains whole, such as a new head


def named_as_in(
    found: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]
) -> tuple[dict[str, Any], frozenset[str], list[str]]:
    """`found` under the names of a model that peft has made, which have the adapter's name in them, as
    `lora_A.default.weight` for `lora_A.weight`.

    Beside them the model's names that an adapter's file lacks, which stay as the model was built, and what was done.

    Nothing is changed where a name of the base model is in `found`, too: it is of the whole model then.
    """
    by_file: dict[str, str] = {}
    for name in tensors:
        if (saved := _saved_as(name)) != name:
            by_file.setdefault(saved, name)
    taken = {name: by_file[name] for name in found if name not in tensors and name in by_file}
    if not taken or len(taken) < len(found):
        return dict(found), frozenset(), []
    base = frozenset(tensors.keys() - taken.values())
    said = f"the file has {len(taken)} weights of an adapter, and the base model stays as it is built ({len(base)})"
    return {taken[name]: value for name, value in found.items()}, base, [said]


def _saved_as(name: str) -> str:
    """The name in an adapter's file of a weight of the model; the same where it is none of an adapter's."""
    parts = name.split(".")
    if _SAVED_WHOLE in parts[:-1]:
        whole = parts.index(_SAVED_WHOLE)
        return ".".join(parts[:whole] + parts[whole + 2 :])
    for i, part in enumerate(parts[:-1]):
        if part.startswith("lora_"):
            return ".".join(parts[: i + 1] + parts[i + 2 :])
    return name

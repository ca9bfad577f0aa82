"""Layer-wise learning-rate decay: which layer each parameter is in, counted from the top.

The rate of the k-th layer from the top is `decay**k` of the rate at the top: Clark et al. 2020 (ELECTRA), appendix A; Bao
et al. 2022 (BEiT), section 3.1.
"""

import importlib
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from torch import nn

from phalanx.config.overrides import shown
from phalanx.exit.codes import ConfigError

_NUMBERED = re.compile(r"([A-Za-z_]*?)_?(\d+)")
_BLOCK = re.compile(r"[a-z_]*(?:layer|block)_?(\d+)")
_BLOCKS = ("blocks", "layers", "layer")  # lists of blocks within a stage


class _Place(NamedTuple):
    """A numbered block: its list, such as encoder.layer, and its number there, of two where a list has stages."""

    stack: str
    number: tuple[int, ...]


def depths(model: nn.Module, names: Sequence[str]) -> dict[str, int]:
    """How many layers lie above each of the parameters `names`, which are in the model's order.

    A model of timm says it itself. In others numbered blocks are the layers (blocks.3, encoder.layer.3, layer1.0): what
    the model has before them is the layer below, and what it has after them the one above, BEiT's rule. Lists of blocks
    side by side, as of an encoder and a decoder, count alike. Raises ConfigError where nothing is numbered.
    """
    if callable(getattr(model, "group_matcher", None)):
        found = _by_timm(model)
        if all(name in found for name in names):
            top = max(found.values())
            return {name: top - found[name] for name in names}
    return by_names(names)


def _by_timm(model: Any) -> dict[str, int]:
    """timm's own map of parameters to layers, as timm.optim.param_groups_layer_decay takes it."""
    group_parameters = importlib.import_module("timm.models").group_parameters
    found: dict[str, int] = group_parameters(model, model.group_matcher(coarse=False), reverse=True)
    return found


def by_names(names: Sequence[str]) -> dict[str, int]:
    """`depths` by the names alone."""
    places = {name: place for name in names if (place := _place(name)) is not None}
    if not places:
        raise ConfigError(
            "optim.layer_decay finds no numbered blocks, such as blocks.3 or layer1, in the names of the parameters: "
            f"{', '.join(names[:8])}. Leave it out, and give rates by optim.groups"
        )
    stacks = _main_stacks(places.values())
    ranks = {
        stack: {
            number: rank for rank, number in enumerate(sorted({p.number for p in places.values() if p.stack == stack}))
        }
        for stack in stacks
    }
    inside = {name: place for name, place in places.items() if place.stack in ranks}
    order = {name: i for i, name in enumerate(names)}
    spans = {stack: [order[name] for name, place in inside.items() if place.stack == stack] for stack in stacks}
    related = {name: _related(name, stacks) for name in names if name not in inside}
    above = [name for name, its in related.items() if order[name] > max(max(spans[stack]) for stack in its)]
    heads = 1 if above else 0
    found: dict[str, int] = {}
    last: dict[str, int] = {}  # of each stack, the depth of the last parameter
    for name in names:
        if name in inside:
            place = inside[name]
            found[name] = len(ranks[place.stack]) - 1 - ranks[place.stack][place.number] + heads
            last[place.stack] = found[name]
        elif order[name] < min(min(spans[stack]) for stack in related[name]):
            found[name] = max(len(ranks[stack]) for stack in related[name]) + heads
        elif name in above:
            found[name] = 0
        else:
            found[name] = min(last[stack] for stack in related[name] if stack in last)
    return found


def _place(name: str) -> _Place | None:
    """The first numbered part of a name, and the next one where it is a block of that stage."""
    parts = name.split(".")[:-1]
    for i, part in enumerate(parts):
        if (first := _NUMBERED.fullmatch(part)) is None:
            continue
        stack = ".".join(filter(None, [*parts[:i], first[1]]))
        number, rest = (int(first[2]),), [*parts[i + 1 :], "", ""]
        if rest[0].isdigit() and not part.isdigit():  # layer1.0, but not the parts of a block, as in blocks.1.0
            return _Place(stack, (*number, int(rest[0])))
        if (inner := _BLOCK.fullmatch(rest[0])) is not None:
            return _Place(stack, (*number, int(inner[1])))
        staged = re.search(r"(?:stages?|layers)$", stack) is not None
        if staged and rest[0] in _BLOCKS and rest[1].isdigit():
            return _Place(stack, (*number, int(rest[1])))
        return _Place(stack, number)
    return None


def _main_stacks(places: "Sequence[_Place] | Any") -> list[str]:
    """The list of blocks with most parameters, and those of the same name elsewhere."""
    counts: dict[str, int] = {}
    for place in places:
        counts[place.stack] = counts.get(place.stack, 0) + 1
    main = max(counts, key=lambda stack: counts[stack]).rpartition(".")[2]
    return [stack for stack in counts if stack.rpartition(".")[2] == main]


def _related(name: str, stacks: Sequence[str]) -> list[str]:
    """The stacks that a parameter outside of them shares most of its path with."""
    parts = name.split(".")

    def shared(stack: str) -> int:
        pairs = list(zip(parts, stack.split("."), strict=False))
        return next((i for i, (one, other) in enumerate(pairs) if one != other), len(pairs))

    most = max(map(shared, stacks))
    return [stack for stack in stacks if shared(stack) == most]


def check_decay(optim: Mapping[str, Any]) -> float | None:
    """optim.layer_decay; None where it is not set. Raises ConfigError."""
    found = optim.get("layer_decay")
    if found is None:
        return None
    if type(found) not in (int, float) or not 0 < found <= 1:
        raise ConfigError(f"optim.layer_decay={shown(found)} is no factor between 0 and 1. Type optim.layer_decay=0.75")
    return float(found)

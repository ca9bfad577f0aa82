"""What an extended run's optimizer may have other values of: numbers of the whole and of its groups, and schedules."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Node = Mapping[str, Any]


@dataclass(frozen=True)
class GroupChanges:
    """`names` are the hyperparameters of groups that differ; `rescheduled`: a learning rate or schedule does."""

    names: frozenset[str]
    rescheduled: bool


def group_changes(before: Node, now: Node) -> GroupChanges | None:
    """Between two `optim` sections, as far as their `groups` go; None where these share the parameters otherwise.

    The same groups have the same parameters in the same order, which the optimizer's state goes by. So what they match,
    their optimizers and what is a group of its own, as biases without weight decay are, must be alike.
    """
    old, new = before.get("groups") or [], now.get("groups") or []
    if len(old) != len(new):
        return None
    names, rescheduled = set[str](), False
    for was, its in zip(old, new, strict=True):
        for key in was.keys() | its.keys():
            if was.get(key) == its.get(key) and (key in was) == (key in its):
                continue
            if key == "schedule":
                rescheduled = True
            elif key == "lr" and _may_have_other_rate(was, its, before, now):
                names.add("lr")
                rescheduled = True
            elif only_a_number(_value(was, key, before), _value(its, key, now)):
                names.add(key)
            else:
                return None
    return GroupChanges(frozenset(names), rescheduled)


def only_a_number(was: object, now: object) -> bool:
    """Whether both are numbers and neither is zero: no weight decay is one group, no momentum is no state."""
    return numbers(was) and numbers(now) and bool(was) and bool(now)


def numbers(value: object) -> bool:
    entries = value if isinstance(value, list) else [value]
    return all(isinstance(entry, int | float) and not isinstance(entry, bool) for entry in entries)


def _may_have_other_rate(was: Node, its: Node, before: Node, now: Node) -> bool:
    """A group with a rate of its own is not shared out by layers."""
    by_layer = before.get("layer_decay") is not None or now.get("layer_decay") is not None
    return ("lr" in was) == ("lr" in its) or not by_layer


def _value(entry: Node, key: str, optim: Node) -> object:
    """Of a group: its own, else its optimizer's."""
    if key in entry:
        return entry[key]
    own = entry.get("optimizer")
    return (own if isinstance(own, Mapping) else optim).get(key)

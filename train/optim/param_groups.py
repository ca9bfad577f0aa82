"""Parameter groups as the config asks for them: which parameters get which optimizer, rate, weight decay and schedule."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from phalanx.common.name_patterns import listed, no_match, no_pattern
from phalanx.config.overrides import shown
from phalanx.exit.codes import ConfigError

from .layer_decay import check_decay

Named = Sequence[tuple[str, nn.Parameter]]

_OWN = {"decay_1d", "groups", "layer_decay", "_partial_"}  # keys of an optimizer's node that its class does not get
_SELECTS = {"match", "name", "ndim", "optimizer", "schedule", "decay_1d"}  # of a group; the others are hyperparameters


_EXAMPLES = {"optimizer": "torch.optim.SGD", "schedule": "phalanx.schedules.Cosine"}


@dataclass(frozen=True)
class Group:
    """One of optim.groups, or with `match` None the parameters that none of them matches.

    `options` are hyperparameters that differ from those of the optimizer's `node`. `ndim`: of what matches only tensors
    of so many dimensions. Without `decay_1d` biases and norm weights have no weight decay.
    """

    name: str
    where: str
    match: re.Pattern[str] | None
    ndim: int | None
    node: Mapping[str, Any]
    node_where: str
    schedule: Mapping[str, Any]
    schedule_where: str
    options: Mapping[str, Any]
    decay_1d: bool

    @property
    def match_text(self) -> str:
        return "" if self.match is None else f"match={self.match.pattern}"


def groups_of(optim: Mapping[str, Any], schedule: Mapping[str, Any]) -> list[Group]:
    """The groups of the sections `optim` and `schedule`, first that of the rest. Raises ConfigError."""
    check_decay(optim)
    node, decay_1d = without_own_keys(optim), _flag(optim, "optim", default=True)
    rest = Group("rest", "optim", None, None, node, "optim", schedule, "schedule", {}, decay_1d)
    entries = optim["groups"] if optim.get("groups") is not None else []
    if not isinstance(entries, list) or not all(isinstance(entry, Mapping) for entry in entries):
        raise ConfigError(
            f"optim.groups={shown(entries)} is no list of groups. Type them as optim.groups=[{{match:head,lr:0.01}}]"
        )
    found = [rest]
    for i, entry in enumerate(entries):
        group = _group(entry, f"optim.groups.{i}", rest)
        if group.name in [other.name for other in found]:
            if "name" in entry:
                raise ConfigError(f"{group.where}.name={group.name} is the name of another group. Type another one")
            group = _group({**entry, "name": f"{group.name}_{i}"}, group.where, rest)
        found.append(group)
    return found


def without_own_keys(node: Mapping[str, Any]) -> dict[str, Any]:
    """The node of an optimizer as its class takes it."""
    return {name: value for name, value in node.items() if name not in _OWN}


def _group(entry: Mapping[str, Any], where: str, rest: Group) -> Group:
    match = entry.get("match")
    if not isinstance(match, str) or not match:
        raise ConfigError(f"{where} has no match. Type match: and a regular expression for the parameters' names")
    if (told := no_pattern(match, f"{where}.match", "match: head")) is not None:
        raise ConfigError(told)
    own, schedule = _node(entry, "optimizer", where), _node(entry, "schedule", where)
    options = {name: _hyperparameter(value, f"{where}.{name}") for name, value in entry.items() if name not in _SELECTS}
    name = entry.get("name", re.sub(r"[^\w.-]+", "_", match).strip("_.") or "group")
    if not isinstance(name, str) or not re.fullmatch(r"[\w.-]+", name):
        raise ConfigError(
            f"{where}.name={shown(name)} is no name of a metric. Type one of letters, digits, '_', '.' and '-'"
        )
    ndim = entry.get("ndim")
    if ndim is not None and (type(ndim) is not int or ndim < 0):
        raise ConfigError(f"{where}.ndim={shown(ndim)} is no number of dimensions. Type ndim: 2 for matrices")
    return Group(
        name=name,
        where=where,
        match=re.compile(match),
        ndim=ndim,
        node=rest.node if own is None else without_own_keys(own),
        node_where="optim" if own is None else f"{where}.optimizer",
        schedule=rest.schedule if schedule is None else schedule,
        schedule_where="schedule" if schedule is None else f"{where}.schedule",
        options=options,
        decay_1d=_flag(own or {}, f"{where}.optimizer", _flag(entry, where, default=rest.decay_1d)),
    )


def _node(entry: Mapping[str, Any], name: str, where: str) -> Mapping[str, Any] | None:
    found = entry.get(name)
    if found is not None and not isinstance(found, Mapping):
        raise ConfigError(f"{where}.{name}={shown(found)} names no class. Type {name}: {{_target_: {_EXAMPLES[name]}}}")
    return found


def _flag(node: Mapping[str, Any], where: str, default: bool) -> bool:
    found = node.get("decay_1d", default)
    if type(found) is not bool:
        raise ConfigError(
            f"{where}.decay_1d={shown(found)} must be true or false: whether weight decay is for biases and norm weights, "
            "too"
        )
    return found


def _hyperparameter(value: Any, where: str) -> Any:
    """As optimizers hold it in a group: a tuple for a list."""
    if where.endswith((".lr", ".weight_decay")) and (type(value) not in (int, float) or value < 0):
        raise ConfigError(f"{where}={shown(value)} is no number that is 0 or more. Type one")
    return tuple(value) if isinstance(value, list) else value


def members(
    groups: Sequence[Group], named: Named, aliases: Mapping[int, Sequence[str]]
) -> tuple[list[list[tuple[str, nn.Parameter]]], list[str], list[str]]:
    """The trained parameters of each group, notes for the user, and notes on groups without any.

    The first group that matches takes a parameter. `named` are all of the model's, once; `aliases` has further names by
    the parameter's id, as a tied weight has two.
    Raises ConfigError for a pattern that matches no name, with the names that there are.
    """
    taken: list[list[tuple[str, nn.Parameter]]] = [[] for _ in groups]
    shared: dict[tuple[int, int], list[str]] = {}
    matched: set[int] = set()
    for name, parameter in named:
        fits = list(_matching(groups, dict.fromkeys([name, *aliases.get(id(parameter), ())]), parameter))
        matched.update(fits)
        if not parameter.requires_grad:
            continue
        taken[fits[0] if fits else 0].append((name, parameter))
        for other in fits[1:]:
            shared.setdefault((fits[0], other), []).append(name)
    for i, group in enumerate(groups[1:], 1):
        if i not in matched:
            raise ConfigError(_no_match(group, [name for name, _ in named]))
    notes = [
        f"{groups[first].where} and {groups[other].where} both match {listed(names)}: {groups[first].where} "
        f"({groups[first].match_text}), which comes first, takes them"
        for (first, other), names in shared.items()
    ]
    left = [
        f"{group.where} ({group.match_text}) is left with no parameter that trains"
        for group, found in list(zip(groups, taken, strict=True))[1:]
        if not found
    ]
    return taken, notes, left


def _matching(groups: Sequence[Group], names: Mapping[str, None], parameter: nn.Parameter) -> Iterator[int]:
    for i, group in enumerate(groups):
        if group.match is None or (group.ndim is not None and parameter.ndim != group.ndim):
            continue
        if any(group.match.search(name) for name in names):
            yield i


def _no_match(group: Group, names: Sequence[str]) -> str:
    assert group.match is not None
    kind = "parameter" if group.ndim is None else f"parameter with {group.ndim} dimensions"
    return no_match(group.match.pattern, f"{group.where}.match", names, kind)

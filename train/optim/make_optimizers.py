"""Make the optimizers of a run as the config asks for them, each tried before it trains."""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from phalanx.exit.codes import ConfigError
from phalanx.targets.instantiate import Targets

from ..schedules.make_rates import RatesMaker
from .group_optimizer import GroupOptimizer
from .layer_decay import check_decay, depths
from .optimizer_trial import Traits, try_optimizer
from .param_groups import Group, Named, groups_of, members
from .sparse_gradients import is_table

ParamGroup = dict[str, Any]


@dataclass(frozen=True)
class Made:
    """`facts` describe the groups, for the log; `notes` are warnings for the user, `left` those of empty groups."""

    optimizers: list[GroupOptimizer]
    facts: list[dict[str, Any]]
    notes: list[str]
    left: list[str]


@dataclass(frozen=True)
class _Part:
    """Parameters of a group that have one rate."""

    group: Group
    name: str
    parameters: list[nn.Parameter]
    options: Mapping[str, Any]


def make_optimizers(
    optim: Mapping[str, Any],
    schedule: Mapping[str, Any],
    builder: Targets,
    model: nn.Module,
    named: Named,
    aliases: Mapping[int, Sequence[str]],
    rates: RatesMaker,
) -> Made:
    """The optimizers over `named`, the model's parameters, of which frozen ones are in none. Raises ConfigError.

    `aliases` has further names of parameters by their id. Groups with equal nodes share an optimizer; that of
    the parameters that no group matches comes first.
    """
    _check_parameters(named)
    groups = groups_of(optim, schedule)
    found, notes, left = members(groups, named, aliases)
    decay = check_decay(optim)
    layers = None if decay is None else depths(model, [name for name, _ in named])
    parts: list[_Part] = []
    for group, its in zip(groups, found, strict=True):
        if decay is None or layers is None or "lr" in group.options:
            parts += [_Part(group, group.name, [parameter for _, parameter in its], group.options)] if its else []
        elif its:
            parts += _by_layer(group, its, decay, layers, _defaults(builder, group)["lr"])
    of_node: dict[str, list[_Part]] = {}
    for part in parts:
        of_node.setdefault(repr(sorted(part.group.node.items(), key=str)), []).append(part)
    made = [_Optimizer(shared, builder, len(parts) == 1) for shared in of_node.values()]
    return Made(
        [each.with_rates(rates) for each in made], [fact for each in made for fact in each.facts()], notes, left
    )


def _by_layer(
    group: Group, its: Sequence[tuple[str, nn.Parameter]], decay: float, layers: Mapping[str, int], rate: Any
) -> list[_Part]:
    """A group's parameters apart by layer, the topmost first, each layer with a rate of its own."""
    if type(rate) not in (int, float):
        raise ConfigError(
            f"optim.layer_decay lowers the rate from layer to layer, and {group.node.get('_target_')} has none to begin "
            f"with. Type {group.node_where}.lr=0.001"
        )
    bottom = max(layers.values())
    prefix = "" if group.match is None else f"{group.name}/"
    return [
        _Part(
            group,
            f"{prefix}layer_{bottom - depth}",
            [parameter for name, parameter in its if layers[name] == depth],
            {**group.options, "lr": rate * decay**depth},
        )
        for depth in sorted({layers[name] for name, _ in its})
    ]


def _defaults(builder: Targets, group: Group) -> dict[str, Any]:
    """The arguments of a group's optimizer: those that are set, else its own."""
    target = builder.resolve(group.node, group.node_where, torch.optim.Optimizer)
    own = {name: p.default for name, p in _parameters(target).items() if p.default is not p.empty}
    return {"lr": None, **own, **group.node}


def _check_parameters(named: Named) -> None:
    trained = [(name, parameter) for name, parameter in named if parameter.requires_grad]
    if not trained:
        raise ConfigError(
            "The model has no parameter to train: none requires a gradient. Modules in a plain list or dict are not found: "
            "put them into an nn.ModuleList or nn.ModuleDict, and tensors into nn.Parameter"
        )
    for name, parameter in trained:
        if not _dense(parameter):
            raise ConfigError(f"The parameter {name} has gaps or overlaps in memory. Make it with .contiguous()")


def _dense(tensor: torch.Tensor) -> bool:
    """Whether the elements fill their memory without gaps, in any order, so that a copy keeps the strides."""
    return tensor.stride() == torch.empty_like(tensor, device="meta").stride()


class _Optimizer:
    """The optimizer of `parts`, whose groups have one node."""

    def __init__(self, parts: Sequence[_Part], builder: Targets, alone: bool) -> None:
        """`alone`: there is no other part in the run."""
        self._builder = builder
        first = parts[0].group
        self._where, self._node = first.node_where, dict(first.node)
        target = builder.resolve(self._node, self._where, torch.optim.Optimizer)
        self._takes = next(iter(_parameters(target)), "params")
        every = [parameter for part in parts for parameter in part.parameters]
        if self._node.get("fused") and any(p.is_complex() or is_table(p) for p in every):
            self._node["fused"] = False  # no fused kernel takes complex numbers, nor sparse gradients
        if self._node.get("momentum") and any(map(is_table, every)):
            raise ConfigError(
                f"{self._where}.momentum={self._node['momentum']} moves all rows of a table in each step, and the "
                f"gradient of an nn.Embedding(sparse=True) has few. Type {self._where}.momentum=0, or make the "
                "layer with sparse=False"
            )
        self._part_of = {id(parameter): part for part in parts for parameter in part.parameters}
        self._check_ranges(parts)
        set_ = _defaults(builder, first)
        groups = [group for part in parts for group in _split(part, set_, alone=alone)]
        self.optimizer = self._make(groups)
        self._traits: Traits = try_optimizer(self._make, groups)
        self._parts = [self._part(group) or parts[0] for group in self.optimizer.param_groups]

    def _check_ranges(self, parts: Sequence[_Part]) -> None:
        """Raise ConfigError for numbers that a class refuses as arguments: it looks at none of what stands in a group."""
        members: dict[str, list[nn.Parameter]] = {}
        for part in parts:
            members.setdefault(part.group.where, []).extend(part.parameters)
        for group in {part.group.where: part.group for part in parts if part.group.options}.values():
            node = {**self._node, **group.options}
            self._builder.build(node, group.where, torch.optim.Optimizer, **{self._takes: members[group.where]})

    def _make(self, groups: list[ParamGroup]) -> torch.optim.Optimizer:
        return self._builder.build(self._node, self._where, torch.optim.Optimizer, **{self._takes: groups})

    def _part(self, group: ParamGroup) -> _Part | None:
        """The part that a group of the optimizer, which may make groups of its own, has parameters of."""
        found = {id(part): part for p in group["params"] if (part := self._part_of.get(id(p))) is not None}
        if len({part.group.schedule_where for part in found.values()}) > 1:
            raise ConfigError(
                f"The optimizer {type(self.optimizer).__name__} puts parameters of {len(found)} groups with schedules of "
                "their own into one group. Leave out `schedule` in optim.groups, or take another optimizer"
            )
        return next(iter(found.values()), None)

    def with_rates(self, maker: RatesMaker) -> GroupOptimizer:
        """With the rates of its groups: those with one schedule together."""
        by_schedule: dict[str, list[int]] = {}
        for i, part in enumerate(self._parts):
            by_schedule.setdefault(part.group.schedule_where, []).append(i)
        groups = self.optimizer.param_groups
        rates = [
            maker.make(
                self._parts[of[0]].group.schedule, where, self.optimizer, [groups[i] for i in of], self._traits.own_rate
            )
            for where, of in by_schedule.items()
        ]
        return GroupOptimizer(self.optimizer, self._traits, rates, [part.name for part in self._parts])

    def facts(self) -> list[dict[str, Any]]:
        """Before `with_rates`, which sets the rates of the first step."""
        return [
            {
                "name": part.name,
                "optimizer": type(self.optimizer).__name__,
                "tensors": len(group["params"]),
                "parameters": sum(p.numel() for p in group["params"]),
                **{name: float(group[name]) for name in ("lr", "weight_decay") if group.get(name) is not None},
            }
            for part, group in zip(self._parts, self.optimizer.param_groups, strict=True)
        ]


def _split(part: _Part, node: Mapping[str, Any], *, alone: bool) -> list[ParamGroup]:
    """The groups of a part as torch takes them: biases and norm weights apart where they have no weight decay.

    The only group of a run keeps both, also where one is empty: so they are in older checkpoints.
    """
    options = dict(part.options)
    decay = options["weight_decay"] if "weight_decay" in options else node.get("weight_decay")
    if part.group.decay_1d or not decay:
        return [{"params": part.parameters, **options}]
    split = [
        {"params": [p for p in part.parameters if p.dim() > 1], **options},
        {"params": [p for p in part.parameters if p.dim() <= 1], **options, "weight_decay": 0.0},
    ]
    return split if alone else [group for group in split if group["params"]]


def _parameters(target: Any) -> Mapping[str, inspect.Parameter]:
    try:
        return inspect.signature(target).parameters
    except ValueError:  # written in C
        return {}

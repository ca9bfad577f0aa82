"""What the rules of train.freeze mean for a model: the parameters that are frozen at a step, and its BatchNorms."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from phalanx.config.schema import Node
from phalanx.exit.codes import ConfigError

from .name_patterns import matching


@dataclass(frozen=True)
class _Rule:
    """Holds from step `start` on, counted from 0, up to but without `until`; None is for ever."""

    names: frozenset[str]
    start: int
    until: int | None

    def holds(self, step: int) -> bool:
        return self.start <= step and (self.until is None or step < self.until)


@dataclass(frozen=True)
class _Norm:
    """A BatchNorm, frozen as soon as all of `names` are: its parameters, or its statistics where it has none."""

    name: str
    names: frozenset[str]


@dataclass(frozen=True)
class FreezePlan:
    """`trainable` are the parameters that train at some step, in the model's order: those that its author froze do not.

    `never` are all names of the others.
    """

    trainable: list[str]
    never: frozenset[str]
    rules: list[_Rule]
    norms: list[_Norm]

    @property
    def changes(self) -> bool:
        """Whether what trains changes within a run."""
        return any(rule.start or rule.until is not None for rule in self.rules)

    def matched(self, step: int) -> set[str]:
        """The names that a rule holds at `step`, of BatchNorms without parameters those of their statistics."""
        return set().union(*(rule.names for rule in self.rules if rule.holds(step)))

    def trained(self, step: int) -> list[str]:
        """The parameters that train at `step`."""
        held = self.matched(step)
        return [name for name in self.trainable if name not in held]

    def frozen_norms(self, step: int) -> list[str]:
        """The BatchNorms that are in eval mode at `step`, so that their statistics stay as they are."""
        held = self.matched(step)
        return [norm.name for norm in self.norms if norm.names <= held]

    def next_change(self, step: int) -> int | None:
        """The first step after `step` at which a rule begins or ends."""
        seams = {seam for rule in self.rules for seam in (rule.start, rule.until) if seam is not None and seam > step}
        return min(seams, default=None)


def freeze(model: nn.Module, rules: Sequence[Node]) -> FreezePlan:
    """Freeze what is frozen for ever from the first step on, and plan the rest.

    Raises ConfigError for a rule that matches nothing, and for a step at which nothing would train.
    """
    every = dict(model.named_parameters(remove_duplicate=False))
    first = {id(parameter): name for name, parameter in model.named_parameters()}
    norms = [
        _Norm(name, frozenset(first[id(p)] for p in module.parameters()) or frozenset({f"{name}.running_mean"}))
        for name, module in model.named_modules()
        if isinstance(module, _NormBase)
    ]
    statistics = [name for norm in norms for name in norm.names if name not in every]
    found = []
    for i, rule in enumerate(rules):
        names = matching(rule["match"], [*every, *statistics], f"train.freeze[{i}].match")
        shared = frozenset(
            first[id(every[name])] if name in every else name for name in names
        )  # of tied ones the first
        found.append(_Rule(shared, rule.get("from", 0), rule.get("until")))
    held = {name for rule in found if not rule.start and rule.until is None for name in rule.names}
    trains = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    trainable = [name for name in trains if name not in held]
    of_trainable = set(trainable)
    never = frozenset(name for name, parameter in every.items() if first[id(parameter)] not in of_trainable)
    plan = FreezePlan(trainable, never, found, norms)
    _check_something_trains(plan, trains)
    for name in held & set(trains):
        every[name].requires_grad_(False)
    if not plan.changes:
        for name in plan.frozen_norms(0):
            model.get_submodule(name).eval()
    return plan


def _check_something_trains(plan: FreezePlan, trains: Sequence[str]) -> None:
    step: int | None = 0
    while step is not None and trains:
        if not plan.trained(step):
            raise ConfigError(
                f"train.freeze holds all {len(trains)} parameters at step {step}, so nothing would train. Let one go: "
                f"{trains[-1]}"
            )
        step = plan.next_change(step)

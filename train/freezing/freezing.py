"""Freeze and unfreeze parameters between two steps: the same on any number of ranks, and over restarts."""

from dataclasses import dataclass, field

from torch import nn

from .plan import FreezePlan


@dataclass(frozen=True)
class Change:
    """What trains from now on: the names of parameters, and the BatchNorms that are in eval mode."""

    trained: list[str]
    frozen: list[str]
    batch_norms: list[str]


@dataclass
class Freezing:
    """Follows a plan. What is frozen is a function of the step alone, so a checkpoint holds nothing of it."""

    plan: FreezePlan
    _until: int | None = 0  # the next step at which something may change
    _trained: list[str] = field(init=False)
    _in_eval: dict[str, bool] = field(default_factory=dict)  # BatchNorms that are frozen now, and their mode before

    def __post_init__(self) -> None:
        self._trained = self.plan.trainable  # as the model is built, and as the sanity check sees it

    def before(self, step: int, model: nn.Module) -> Change | None:
        """What is to train from `step` on, counted from 0; None where nothing changes. Sets the modes of BatchNorms."""
        if self._until is None or step < self._until:
            return None
        self._until = self.plan.next_change(step)
        trained, norms = self.plan.trained(step), self.plan.frozen_norms(step)
        if trained == self._trained and set(norms) == self._in_eval.keys():
            return None
        self._trained = trained
        self._set_modes(model, norms)
        return Change(trained, [name for name in self.plan.trainable if name not in set(trained)], norms)

    def _set_modes(self, model: nn.Module, norms: list[str]) -> None:
        for name in self._in_eval.keys() - set(norms):
            model.get_submodule(name).train(self._in_eval.pop(name))
        for name in norms:
            module = model.get_submodule(name)
            self._in_eval.setdefault(name, module.training)
            module.eval()

"""A scheduler of torch beside the optimizer: on a stand-in with groups like its own, which no step moves."""

import io
import pickle
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from phalanx.exit import user_error
from phalanx.exit.codes import ConfigError

from .group_rates import ParamGroup

Make = Callable[[torch.optim.Optimizer], LRScheduler]

_TRIED = 3  # steps


class TorchScheduler:
    """A scheduler that `make` builds for groups like `groups`, whose rates are the peaks."""

    def __init__(self, make: Make, optimizer: torch.optim.Optimizer, groups: Sequence[ParamGroup]) -> None:
        self._stand_in = _StandIn(optimizer, groups)
        self._scheduler = make(self._stand_in)
        self._known = [dict(group) for group in groups]
        self._moves: set[str] = set()
        self._find_moves()

    @property
    def rates(self) -> list[float]:
        """The learning rate of each group."""
        return [float(group["lr"]) for group in self._stand_in.param_groups]

    @property
    def ends(self) -> int | None:
        """The step after which it raises, as OneCycleLR does; None where it has no such end."""
        found = getattr(self._scheduler, "total_steps", None)
        return found if isinstance(found, int) else None

    @property
    def others(self) -> list[dict[str, Any]] | None:
        """What else each group has of the scheduler's, such as OneCycleLR's momentum; None where it sets rates alone."""
        if not self._moves:
            return None
        return [{name: group[name] for name in self._moves} for group in self._stand_in.param_groups]

    def advance(self, *value: float) -> None:
        """One step of the scheduler; of ReduceLROnPlateau with the metric's value."""
        self._stand_in.step()
        self._scheduler.step(*value)  # type: ignore[arg-type]
        self._find_moves()

    def state(self) -> dict[str, Any]:
        groups = [{n: v for n, v in group.items() if n != "params"} for group in self._stand_in.param_groups]
        return _read(_written({"scheduler": self._scheduler.state_dict(), "groups": groups}))

    def load(self, state: Mapping[str, Any]) -> None:
        """Restore what `state` returned, which stays as it is."""
        its = _read(_written(state))
        self._scheduler.load_state_dict(its["scheduler"])
        for group, values in zip(self._stand_in.param_groups, its["groups"], strict=True):
            group.update(values)
        self._find_moves()

    def _find_moves(self) -> None:
        for group, known in zip(self._stand_in.param_groups, self._known, strict=True):
            own = known.keys() - {"params", "lr", "initial_lr"}
            self._moves |= {name for name in own if group[name] is not known[name] and group[name] != known[name]}


class _StandIn(torch.optim.Optimizer):
    """The same hyperparameters, and no weights."""

    def __init__(self, optimizer: torch.optim.Optimizer, groups: Sequence[ParamGroup]) -> None:
        self._step_count = 0
        plain = [{**group, "params": [torch.zeros(())]} for group in groups]
        super().__init__(plain, dict(optimizer.defaults))

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Schedulers warn where it was not called."""


def check_resumes(make: Callable[[], TorchScheduler], name: str, where: str) -> None:
    """Raise ConfigError if `make`'s scheduler fails, or goes on otherwise after its state went through a file."""
    one, other = make(), make()
    plateau = isinstance(one._scheduler, ReduceLROnPlateau)
    try:
        for i in range(_TRIED):
            one.advance(*([float(i)] if plateau else []))
        other.load(one.state())
        for i in range(_TRIED):
            for each in (one, other):
                each.advance(*([float(i)] if plateau else []))
    except (pickle.PicklingError, pickle.UnpicklingError) as error:
        raise ConfigError(
            f"{where}: {name} has a state that cannot be saved and loaded without running code: "
            f"{str(error).splitlines()[0]}. Keep numbers and texts there"
        ) from None
    except Exception as error:
        line, why = user_error.user_line(error), " ".join(user_error.message(error).split())
        raise ConfigError(f"{where}: {name} cannot take a step: {why}{f' ({line})' if line else ''}") from error
    if (one.rates, one.others) != (other.rates, other.others):
        raise ConfigError(
            f"{where}: {name} goes on otherwise after its state was saved and loaded: it remembers something that its "
            "state_dict() does not hold, and every restart would lose that"
        )


def _written(state: Mapping[str, Any]) -> bytes:
    file = io.BytesIO()
    torch.save(dict(state), file)
    return file.getvalue()


def _read(text: bytes) -> dict[str, Any]:
    found: dict[str, Any] = torch.load(io.BytesIO(text), weights_only=True)
    return found

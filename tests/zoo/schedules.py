"""Schedules that are not tame: what people write who think of one step at a time."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.optim.lr_scheduler import LRScheduler

from phalanx.train.schedules.schedule import Schedule


@dataclass(frozen=True)
class Giving(Schedule):
    """Gives the member `kind` of the table below."""

    kind: str

    def factor(self, applied: Any, total: int) -> Any:
        return {**GOOD, **{name: answer for name, (answer, _) in BAD.items()}}[self.kind](applied, total)


GOOD: dict[str, Any] = {
    "a list": lambda applied, total: [0.5] * len(applied),
    "a tensor": lambda applied, total: torch.linspace(1, 0, len(applied)),
    "numbers of 32 bits": lambda applied, total: np.full(len(applied), 0.5, np.float32),
    "what breaks down after the end": lambda applied, total: 1 / (total - applied),
}
BAD: dict[str, tuple[Any, str]] = {
    "too few": (lambda applied, total: np.ones(3), r"answers with the shape \(3,\) to an array of shape \(11,\)"),
    "one number": (lambda applied, total: 0.5, r"answers with the shape \(\) .* np\.full"),
    "a column": (lambda applied, total: applied[:, None] * 0.5, r"answers with the shape \(11, 1\)"),
    "infinite": (lambda applied, total: 1 / applied, "gives inf for step 1 of 10"),
    "not a number": (lambda applied, total: np.where(applied == 4, np.nan, 1), "gives nan for step 5 of 10"),
    "negative": (lambda applied, total: 0.5 - applied / total, "gives -0.1 for step 7 of 10"),
    "an if": (
        lambda applied, total: 1.0 if applied < 3 else 0.1,
        r"fails: ValueError: The truth value .*schedules.py:\d+ in .*np\.where",
    ),
    "text": (lambda applied, total: "half", "fails: ValueError: could not convert string"),
    "nothing": (lambda applied, total: None, "fails: TypeError|answers with the shape"),
}


class Forgetful(LRScheduler):
    """Remembers in its state_dict nothing of what it counts."""

    def get_lr(self) -> list[float | torch.Tensor]:
        self._seen = getattr(self, "_seen", 0) + 1
        return [0.1 / self._seen for _ in self.optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        return {"last_epoch": self.last_epoch}


class Failing(LRScheduler):
    """Ends in an error after its first step."""

    def get_lr(self) -> list[float | torch.Tensor]:
        if self.last_epoch > 0:
            raise ValueError("too far")
        return [0.1 for _ in self.optimizer.param_groups]

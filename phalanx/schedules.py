"""Learning-rate schedules, by the names that configs use: `schedule._target_=phalanx.schedules.Cosine`."""

from typing import TYPE_CHECKING

from .common.lazy import handed_on

__all__ = ["Constant", "Cosine", "Linear", "OneCycle", "Step"]

if TYPE_CHECKING:
    from .train.schedules.schedule import Constant, Cosine, Linear, OneCycle, Step
else:
    __getattr__, __dir__ = handed_on(
        __package__, __name__, {"train.schedules.schedule": ["Constant", "Cosine", "Linear", "OneCycle", "Step"]}
    )

"""Learning-rate schedules, by the names that configs use: `schedule._target_=phalanx.schedules.Cosine`."""

from typing import TYPE_CHECKING

from .common.lazy import handed_on

__all__ = [
    "Constant",
    "Cosine",
    "CosineRestarts",
    "InverseSquareRoot",
    "Linear",
    "OneCycle",
    "Piecewise",
    "Plateau",
    "Polynomial",
    "Step",
    "WarmupStableDecay",
]

if TYPE_CHECKING:
    from .train.schedules.curves import CosineRestarts, InverseSquareRoot, Piecewise, Polynomial, WarmupStableDecay
    from .train.schedules.plateau import Plateau
    from .train.schedules.schedule import Constant, Cosine, Linear, OneCycle, Step
else:
    __getattr__, __dir__ = handed_on(
        __package__,
        __name__,
        {
            "train.schedules.curves": [
                *("CosineRestarts", "InverseSquareRoot", "Piecewise", "Polynomial", "WarmupStableDecay")
            ],
            "train.schedules.plateau": ["Plateau"],
            "train.schedules.schedule": ["Constant", "Cosine", "Linear", "OneCycle", "Step"],
        },
    )

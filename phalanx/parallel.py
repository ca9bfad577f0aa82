"""Parallel strategies, by the names that configs use: `parallel._target_=phalanx.parallel.DDPStrategy`.

The other names are what a strategy of your own is written with.
"""

from typing import TYPE_CHECKING

from .common.lazy import handed_on

__all__ = ["DDPStrategy", "Gradients", "LossModule", "ParallelStrategy", "broadcast_model"]

if TYPE_CHECKING:
    from .train.optim.gradients import Gradients
    from .train.parallel.broadcast_model import broadcast_model
    from .train.parallel.ddp import DDPStrategy
    from .train.parallel.loss_module import LossModule
    from .train.parallel.strategy import ParallelStrategy
else:
    __getattr__, __dir__ = handed_on(
        __package__,
        __name__,
        {
            "train.optim.gradients": ["Gradients"],
            "train.parallel.broadcast_model": ["broadcast_model"],
            "train.parallel.ddp": ["DDPStrategy"],
            "train.parallel.loss_module": ["LossModule"],
            "train.parallel.strategy": ["ParallelStrategy"],
        },
    )

"""Parallel strategies, by the names that configs use: `parallel._target_=phalanx.parallel.DDPStrategy`."""

from typing import TYPE_CHECKING

from .common.lazy import handed_on

__all__ = ["DDPStrategy"]

if TYPE_CHECKING:
    from .train.parallel.ddp import DDPStrategy
else:
    __getattr__, __dir__ = handed_on(__package__, __name__, {"train.parallel.ddp": __all__})

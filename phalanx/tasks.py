"""Tasks, by the names that configs use: `task._target_=phalanx.tasks.Classification`."""

from typing import TYPE_CHECKING

from .common.lazy import handed_on

__all__ = ["Classification"]

if TYPE_CHECKING:
    from .train.tasks.classification import Classification
else:
    __getattr__, __dir__ = handed_on(__package__, __name__, {"train.tasks.classification": ["Classification"]})

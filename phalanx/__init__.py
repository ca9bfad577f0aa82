"""Phalanx trains PyTorch models on any number of ranks.

What users import stands here and is imported when it is first asked for, so `import phalanx` imports no torch.
"""

from typing import TYPE_CHECKING

from .common.lazy import handed_on

__all__ = [
    "Audio",
    "Augment",
    "ConfigError",
    "Image",
    "Metric",
    "Ratio",
    "Run",
    "RunFailed",
    "Sampler",
    "Schedule",
    "Sink",
    "Table",
    "Task",
    "Text",
    "Update",
    "gather",
    "load",
    "run",
]

if TYPE_CHECKING:
    from .exit.codes import ConfigError
    from .train.api.load import Run, load
    from .train.api.run import RunFailed, run
    from .train.loading.batch import Augment
    from .train.parallel.gather_features import gather
    from .train.samplers.sampler import Sampler
    from .train.schedules.schedule import Schedule
    from .train.sinks.shown import Audio, Image, Table, Text
    from .train.sinks.sink import Sink
    from .train.tasks.metric import Metric, Update
    from .train.tasks.task import Ratio, Task
else:
    __getattr__, __dir__ = handed_on(
        __package__,
        __name__,
        {
            "exit.codes": ["ConfigError"],
            "train.api.load": ["Run", "load"],
            "train.api.run": ["RunFailed", "run"],
            "train.loading.batch": ["Augment"],
            "train.parallel.gather_features": ["gather"],
            "train.samplers.sampler": ["Sampler"],
            "train.schedules.schedule": ["Schedule"],
            "train.sinks.shown": ["Audio", "Image", "Table", "Text"],
            "train.sinks.sink": ["Sink"],
            "train.tasks.metric": ["Metric", "Update"],
            "train.tasks.task": ["Ratio", "Task"],
        },
    )

"""What can be typed for a run that is evaluated, exported or predicted from, and what its config has to have."""

from collections.abc import Sequence
from typing import Any

from ..common.suggest import nearest
from ..config.limits import out_of_range
from ..config.metric_direction import check_sets, data_sets
from ..config.overrides import key
from ..config.schema import Backend, Config, Device
from ..exit.codes import ConfigError
from .job import BEST, EXPORT, LAST, Job

# What may be typed: all else has no effect on what a trained model answers.
_OF_DATA = ("data", "data.eval", "data.test", "data.collate", "data.workers", "data.prefetch", "data.cache")
_READ = (
    *(*_OF_DATA, "eval.batch", "eval.batches", "task", "model", "parallel", "world", "run.trust", "run.imports"),
    *(f"train.{name}" for name in ("precision", "threads", "deterministic", "compile", "channels_last")),
)


def check_words(verb: str, overrides: Sequence[str]) -> None:
    """Raise ConfigError for an override that would change nothing."""
    read = (*_READ, "data.train") if verb == EXPORT else _READ
    for word in overrides:
        name = key(word)
        if not any(name == known or (known != "data" and name.startswith(f"{known}.")) for known in read):
            raise ConfigError(
                f"{word} would have no effect: `phalanx {verb}` takes a run as it was trained. {nearest(name, list(read))}"
                f"It reads {', '.join(read)}"
            )


def check_which(which: str) -> None:
    if which not in (BEST, LAST) and not (which.isascii() and which.isdecimal()):
        raise ConfigError(f"--which={which} is no checkpoint. Type --which best, last, or a step such as 100")


def check_config(config: Config, job: Job) -> None:
    """Raise ConfigError for what cannot be evaluated."""
    for message in out_of_range(config, ""):
        raise ConfigError(message)
    check_sets(config.data)
    if config.world.device is Device.cpu and config.world.backend is Backend.nccl:
        raise ConfigError("world.backend=nccl needs GPUs, and world.device=cpu is set. Type world.backend=gloo")
    if not evaluated_sets(config):
        raise ConfigError(
            f"{job.run} was trained without data.eval and data.test, so there is nothing to evaluate on. Type "
            "'+data.test={_target_: package.module.Class, …}' with a data set"
        )


def evaluated_sets(config: Config) -> dict[str, Any]:
    """The evaluation sets by the rest of their keys below `data`."""
    return {name: node for name, node in data_sets(config.data).items() if name != "train"}

"""What ranks do with a run instead of training it: the words by which train/main.py is told, and where its answer goes."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..common.files import finite, write_atomic
from ..common.suggest import nearest
from ..config.limits import out_of_range
from ..config.metric_direction import check_sets, data_sets
from ..config.overrides import key
from ..config.schema import Backend, Config, Device
from ..exit.codes import ConfigError

ANSWER = "PHALANX_ANSWER_FILE"  # variable: the file that rank 0 writes what the command prints to
EVALUATE, EXPORT = "evaluate", "export"
BEST, LAST = "best", "last"

# What may be typed: all else has no effect on what a trained model answers.
_OF_DATA = ("data", "data.eval", "data.test", "data.collate", "data.workers", "data.prefetch", "data.cache")
_READ = (
    *(*_OF_DATA, "eval.batch", "eval.batches", "task", "model", "parallel", "world", "run.trust", "run.imports"),
    *(f"train.{name}" for name in ("precision", "threads", "deterministic", "compile", "channels_last")),
)


@dataclass(frozen=True)
class Job:
    """`verb` with the checkpoint `which` of the run in the folder `run`: best, last or a step. `options` are the verb's."""

    verb: str
    run: str
    which: str
    options: Mapping[str, Any]

    def words(self, overrides: Sequence[str]) -> list[str]:
        """The words for train/main.py: the config is that of the run's folder."""
        return [self.verb, json.dumps(asdict(self)), f"--config-dir={self.run}", "--config-name=resolved", *overrides]


def job_of(argv: Sequence[str]) -> tuple[Job | None, list[str]]:
    """What `words` has written, and the words for Hydra; None where these are words to train."""
    if list(argv[:1]) not in ([EVALUATE], [EXPORT]):
        return None, list(argv)
    return Job(**json.loads(argv[1])), list(argv[2:])


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


def write_answer(lines: Sequence[Mapping[str, Any]]) -> None:
    """Write JSON lines where the command reads them; on standard output where no command has asked."""
    text = "".join(json.dumps(finite(line)) + "\n" for line in lines)
    path = os.environ.get(ANSWER)
    if path is None:
        print(text, end="", flush=True)
    else:
        write_atomic(Path(path), text)

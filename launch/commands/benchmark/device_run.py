"""A short run on one device, in processes of its own: how long its steps take, and the numbers that it came to."""

import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from phalanx.common.files import read_json
from phalanx.exit.codes import ExitCode
from phalanx.exit.messages import say
from phalanx.run_folder import names
from phalanx.run_folder.jsonl import read_events, read_lines
from phalanx.system.module_path import PACKAGE

from .weight_norms import weight_norms

WINDOWS = 6  # of steps that are timed as one; the first of a run warms up

_ALONE = (  # nothing but steps, and no trace of the run
    *("eval.every=null", "eval.every_epochs=null", "eval.first=false", "eval.batches=1", "eval.predictions=0"),
    *("checkpoint.every=null", "checkpoint.every_s=null", "checkpoint.best_metric=null", "early_stop.metric=null"),
    *(
        "wandb.mode=disabled",
        "tensorboard.enabled=false",
        "mlflow.enabled=false",
        "trackio.enabled=false",
        "log.shown=0",
    ),
    *("train.epochs=null", "train.time_limit=null"),
)


@dataclass(frozen=True)
class DeviceRun:
    """What a run left: the lines of its training, and what it says of the machine."""

    device: str
    precision: str
    lines: Sequence[dict[str, Any]]
    norms: Mapping[str, float | None]  # of the weights at the end, and of their change since the save before

    @property
    def step_s(self) -> list[float]:
        """Seconds of a step in each window but the first."""
        return [float(line["step_time_s"]) for line in self.lines[1:]]

    @property
    def samples(self) -> float:
        """Samples of a step."""
        return float(self.lines[-1]["samples_per_s"]) * float(self.lines[-1]["step_time_s"])

    def numbers(self) -> list[tuple[int, float | None, float | None]]:
        """Of each line the step, the loss and the norm of the gradient; None is what was not finite."""
        return [(int(line["step"]), line["loss"], line["grad_norm"]) for line in self.lines]


def train(words: Sequence[str], device: str, steps: int, log_every: int, *, saved: bool = False) -> DeviceRun:
    """Train `steps` steps on one rank on cpu or cuda. Where it fails, says what it said and exits with its code.

    `saved`: halfway, too, for the norms of the weights.
    """
    with tempfile.TemporaryDirectory(prefix="phalanx-bench-") as root:
        length = (f"train.steps={steps}", f"log.every={log_every}", f"run.root={root}", "run.name=bench")
        saves = (f"checkpoint.every={steps // 2}", "checkpoint.keep=2") if saved else ()
        ours = (*_ALONE, *saves, *length, f"world.device={device}")
        command = [sys.executable, str(PACKAGE), "run", "-n", "1", *words, *ours]
        ended = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", check=False
        )
        if ended.returncode != ExitCode.FINISHED:
            say(f"{ended.stdout.rstrip()}\nerror: the run on {device} ended with code {ended.returncode}")
            sys.exit(ended.returncode if ended.returncode > 0 else ExitCode.BUG)
        folder = Path(root, "bench")
        lines = [line for line in read_lines(folder) if line["split"] == "train"]
        facts = read_json(folder / names.ENVIRONMENT)
        norms = weight_norms(*(_weights(folder, step) for step in (steps // 2, steps))) if saved else {}
        start = next(read_events(folder))
    name = facts["cpu"] if device == "cpu" else (facts["gpus"] or ["GPU"])[0]
    told = name if isinstance(name, str) else str(name.get("name", "GPU"))
    return DeviceRun(told, str(start["precision"]), lines, norms)


def _weights(run: Path, step: int) -> Path:
    return run / names.CHECKPOINTS / names.step_folder(step) / names.MODEL

"""Predict by the model of a run: with its data set's preprocessing, and what its task says an answer means."""

from pathlib import Path

import torch

from phalanx.compose.compose import Composed
from phalanx.deployment.job import Job, write_answer_text
from phalanx.exit.messages import say

from ...distributed.world import World
from ...loading.shard import Span
from ..call_form import Flat, form_of
from ..export.described import labels_of, postprocessing_of, preprocessing_of
from ..observed import call_on, fetched, without_labels
from ..parts import TrainedParts, in_full_precision, trained_parts
from ..runtimes.module_runtime import ModuleRuntime
from .answers import Answers
from .lines import Timing, predict_lines
from .predictor import FormPredictor, Predictor, TaskPredictor
from .raw_inputs import RawInputs
from .typed_inputs import expanded


def predict_run(job: Job, composed: Composed, world: World) -> None:
    """One rank alone calls it. Raises ConfigError."""
    parts = trained_parts(job, in_full_precision(composed), world, spread=False)
    parts.model.eval()
    predictor = predictor_of(parts, world.device, int(job.options["top"]))
    asked = Path(str(job.options["inputs"])).read_text(encoding="utf-8", errors="surrogateescape").split("\0")
    files = None if job.options["files"] is None else Path(str(job.options["files"]))
    timing = Timing(int(job.options["batch"]))
    lines: list[str] = []
    world.watchdog.at("evaluate", parts.checkpoint.step)
    for batch in predict_lines(predictor, expanded(asked, predictor.kinds), timing, files):
        lines += batch
        world.watchdog.touch()
    write_answer_text("".join(f"{line}\n" for line in lines))
    say(timing.told())


def predictor_of(parts: TrainedParts, device: torch.device, top: int) -> Predictor:
    """Raises ConfigError where the task makes no prediction of raw inputs."""
    if parts.task.predicts is not None:
        return TaskPredictor(parts.task, parts.model)
    first = next(iter(parts.evaluations.values()))
    calls, dropped = without_labels(parts, [call_on(parts, fetched(first, Span(0, 1)), first.key)])
    form = form_of(calls[0], without_labels=dropped)
    forms = preprocessing_of(parts, list(form.inputs))
    dtypes = {name: str(dtype).removeprefix("torch.") for name, dtype in form.inputs.items()}
    inputs = RawInputs(forms, dtypes, {}, None)
    runtime = ModuleRuntime(Flat(parts.model, form), list(form.outputs), device)
    answers = Answers(postprocessing_of(parts, list(form.outputs)), labels_of(parts), top)
    return FormPredictor(inputs, runtime, answers)

"""Each experiment, shortened, is killed and continued to the same bits. Run with: pytest -m slow tests/experiments"""

import signal

import pytest

from tests.compare_runs import same
from tests.experiments.expected import EXPERIMENTS
from tests.experiments.pause import pausing
from tests.ranks import Starter, until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

SAVED, KILLED = 6, 8  # steps of 12, so that two are done anew
SHORT = (
    *("train.epochs=null", "train.steps=12", "train.global_batch=8", "log.every=1", "log.shown=2"),
    *("eval.every=4", "eval.every_epochs=null", "eval.batch=8", "eval.batches=2"),
    *("checkpoint.every=3", f"sinks.pause={{_target_: tests.experiments.pause.Pause, step: {KILLED}}}"),
)
SMALLER = {  # where an experiment's own model is big; the data are always those of the experiment
    "gpt": ("model.width=32", "model.layers=2", "model.length=64", "schedule.warmup_steps=2"),
    "satellite": ("schedule.warmup_steps=2",),
    "translation": ("model.width=32", "model.hidden=64", "task.beams=2", "schedule.warmup_steps=2"),
}


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_an_experiment_that_is_killed_goes_on_to_the_same_bits(starter: Starter, experiment: str) -> None:
    run = (f"experiment={experiment}", *SHORT, *SMALLER.get(experiment, ()))
    undisturbed = starter.train(2, *run, name="undisturbed")
    assert len(undisturbed.metrics("train")) == 12

    paused, killed = starter.folder / "paused", starter.results("killed")
    world = starter.start(2, *run, "run.name=killed", environ=pausing(paused))
    until(paused.exists, timeout_s=300)
    until((killed.folder / f"checkpoints/step_{SAVED:08d}/manifest.json").exists)
    world.kill()
    assert world.wait().codes == [-signal.SIGKILL] * 2
    assert not (killed.folder / "summary.json").exists()

    again = starter.train(2, *run, name="killed")
    assert [event["step"] for event in again.events("resume")] == [SAVED]
    same(undisturbed, again)

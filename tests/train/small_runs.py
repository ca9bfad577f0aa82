"""Overrides for runs of a fraction of a second a step count of a few, on planted data."""

import signal
from collections.abc import Mapping

from tests.ranks import Results, Starter, until

SAMPLES = 96
BATCH = 8


def planted(samples: int = SAMPLES, **options: object) -> tuple[str, ...]:
    """A run over `samples` planted samples with a small MLP; `options` are Planted's."""
    given = {"samples": samples, **options}
    return (
        "data.train._target_=tests.train.faulty_parts.Planted",
        "~data.train.split",
        *(f"+data.train.{name}={_written(value)}" for name, value in given.items()),
        "data.eval=null",
        "data.augment=null",
        "checkpoint.best_metric=null",
        "model=mlp",
        "model.inputs=12",
        "model.hidden=[8]",
        f"train.global_batch={BATCH}",
        "schedule=linear",
        "eval.every=null",
        "checkpoint.every=null",
        "checkpoint.keep=100",
        "log.every=4",
        "world.device=cpu",
    )


def _written(value: object) -> str:
    if isinstance(value, list | tuple | range):
        return "[" + ",".join(map(str, value)) + "]"
    return str(value)


def undisturbed_and_killed(starter: Starter, ranks: int, *run: str) -> tuple[Results, Results]:
    """What one command line leaves where nobody dies, and what `killed_once` does."""
    killed = starter.folder / "killed"  # Planted's marker
    killed.touch()
    undisturbed = starter.train(ranks, *run, name="undisturbed")
    killed.unlink()
    return undisturbed, killed_once(starter, ranks, *run)


def killed_once(starter: Starter, ranks: int, *run: str) -> Results:
    """What a run leaves in which one rank kills itself and whose command is typed a second time."""
    ended = starter.run(ranks, *run, "run.name=killed")
    assert -signal.SIGKILL in ended.codes, ended.output
    ended = starter.run(ranks, *run, "run.name=killed")
    assert ended.codes == [0] * ranks, ended.output
    return starter.results("killed")


def killed_after(
    step: int, starter: Starter, ranks: int, *run: str, environ: Mapping[str, str] | None = None
) -> Results:
    """What a run leaves of which all ranks are killed once `step` is saved, and whose command is typed a second time."""
    world = starter.start(ranks, *run, "run.name=killed", environ=environ)
    until((starter.results("killed").folder / f"checkpoints/step_{step:08d}/manifest.json").exists)
    world.kill()
    assert world.wait().codes == [-signal.SIGKILL] * ranks
    again = starter.train(ranks, *run, name="killed", environ=environ)
    assert again.events("resume")
    return again

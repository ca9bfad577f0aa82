"""Export in the test's own process, as a world of one."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from phalanx.compose.compose import compose
from phalanx.deployment.job import Job, job_of
from phalanx.exit.rank_env import RankEnv
from phalanx.train.deploy.export.export import export
from phalanx.train.deploy.parts import TrainedParts, trained_parts
from phalanx.train.distributed.rendezvous import join
from phalanx.train.distributed.world import World
from tests.ranks import Results, Starter
from tests.train.built_parts import kept_switches

MLP = ("model=mlp", "model.hidden=[16]", "train.steps=20", "train.epochs=null", "optim.lr=0.01", "train.ema_decay=0.5")


def trained(starter: Starter, *words: str, name: str = "r") -> Path:
    """The folder of a run of one rank."""
    results: Results = starter.train(1, *MLP, *words, name=name)
    return results.folder


def job(run: Path, to: str, dtype: str = "fp32", out: Path | None = None, which: str = "best") -> Job:
    return Job("export", str(run), which, {"to": to, "dtype": dtype, "out": None if out is None else str(out)})


def exported(asked: Job, words: Sequence[str] = ()) -> dict[str, Any]:
    """The report of an export that is made here."""
    _, argv = job_of(asked.words(["world.device=cpu", "train.threads=1", *words]))
    composed = compose(argv)
    with kept_switches(), pytest.MonkeyPatch.context() as patch:
        answer = Path(asked.run).parent / "answer.jsonl"
        patch.setenv("PHALANX_ANSWER_FILE", str(answer))
        export(asked, composed, _alone(composed.config), [])
        (line,) = answer.read_text().splitlines()
    found: dict[str, Any] = json.loads(line)
    return found


def parts_of(asked: Job) -> tuple[TrainedParts, World]:
    _, argv = job_of(asked.words(["world.device=cpu", "train.threads=1", "train.precision=fp32"]))
    composed = compose(argv)
    world = _alone(composed.config)
    return trained_parts(asked, composed, world, spread=False), world


def _alone(config: Any) -> World:
    world = join(RankEnv.from_environment({}), config.world, config.train.deterministic)
    world.watchdog.close()  # pytest's process goes on to other things
    return world

"""Queues of sweeps whose runs a test trains by leaving what a finished run leaves."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from phalanx.common.files import write_json
from phalanx.compose.compose import Composed, compose
from phalanx.compose.digest import digest
from phalanx.config.schema import Config, Mode, SweepConfig
from phalanx.launch.search.asha import Asha
from phalanx.launch.search.optuna_study import open_search
from phalanx.launch.search.space import SearchSpace, parse_space
from phalanx.launch.state.sweep_peers import SweepPeers
from phalanx.launch.sweep.trial import SweepPlan, TrialRun
from phalanx.launch.sweep.trial_queue import TrialQueue

SPACE = parse_space(("optim.lr=1,2,3,4,5,6,7,8,9",), lambda group: ())
BASE = compose(["model=mlp"])
ASHA = Asha(first=10, eta=3, batch=64, smaller=True)


def composed(words: Any, **changes: Any) -> Composed:
    """Of a point, without Hydra's 0.1 s: what tells points apart here is their learning rate, and a seed."""
    typed = dict(word.split("=") for word in words)
    lr, seed = float(typed["optim.lr"]), int(typed.get("seed", "0"))
    config = replace(BASE.config, optim={**BASE.config.optim, "lr": lr}, seed=seed, **changes)
    return cast("Composed", SimpleNamespace(config=config))


def settings(**changes: Any) -> SweepConfig:
    return replace(BASE.config.sweep, metric="loss", mode=Mode.min, **changes)


@contextmanager
def start(
    folder: Path,
    asha: Asha | None = None,
    config: SweepConfig | None = None,
    space: SearchSpace = SPACE,
    made: Callable[..., Any] = composed,
    left: Sequence[str] = (),
) -> Iterator[TrialQueue]:
    """What a start of the sweep's command opens."""
    folder.mkdir(exist_ok=True)
    config = config or settings()
    with SweepPeers(folder) as peers:
        search = open_search(folder, space, config, [{}], peers.lock)
        queue = TrialQueue(
            SweepPlan(
                folder, space, config, "loss", "eval", "loss", Mode.min, 0, (), None, made, asha, frozenset(left)
            ),
            search,
            peers,
        )
        queue.resume_stopped()
        yield queue


def train(queue: TrialQueue, trial_run: TrialRun, loss: float, config: Config | None = None) -> None:
    """Leave what a finished run of the trial_run leaves."""
    run = queue.plan.run(trial_run)
    step = run / "checkpoints/step_00000008"
    step.mkdir(parents=True, exist_ok=True)  # a start that was killed in the midst of this left it
    write_json(step / "manifest.json", {"config_digest": digest(config or queue.records.composed(trial_run).config)})
    write_json(run / "summary.json", {"eval": {"loss": loss}})


def states(queue: TrialQueue) -> dict[int, str]:
    return {trial.number: trial.state.name.lower() for trial in queue.search.trials()}

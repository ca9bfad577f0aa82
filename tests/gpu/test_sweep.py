"""A sweep on a GPU: the ranks of the next trial have met it while others train there."""

import os
from pathlib import Path

import pytest

from tests.launch.sweep.sweeper import SHORT, Sweeper
from tests.ranks import Starter

pytestmark = pytest.mark.gpu

WORDS = (*SHORT, "train.steps=40", "world.device=cuda", "train.deterministic=true")


@pytest.mark.parametrize("ranks", [1, pytest.param(2, marks=pytest.mark.multi_gpu)])
def test_trials_have_the_weights_of_runs_that_were_started_alone(ranks: int, tmp_path: Path, starter: Starter) -> None:
    sweeper = Sweeper(tmp_path)
    visible = {"CUDA_VISIBLE_DEVICES": os.environ.get("CUDA_VISIBLE_DEVICES", "0,1"[: 2 * ranks - 1])}
    words = ("optim.lr=1e-3,1e-2", f"sweep.ranks={ranks}", "sweep.slots=1")
    sweeper.finish(*WORDS, *words, environ=visible)
    assert sweeper.forked(1) < sweeper.results(0).events("finish")[0]["time"]
    alone = starter.train(ranks, *WORDS, "optim.lr=0.01", name="alone", environ=visible)
    assert sweeper.results(1).events("start")[0]["device"].startswith("cuda")
    assert sweeper.results(1).sha256 == alone.sha256
    assert all(0 < row["energy_j"] < 1000 * row["rank_s"] for row in sweeper.found["rows"]), "joules, by a card"


def test_trials_share_a_gpu_where_that_is_asked(tmp_path: Path) -> None:
    sweeper = Sweeper(tmp_path)
    visible = {"CUDA_VISIBLE_DEVICES": os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]}
    sweeper.finish(*WORDS, "optim.lr=1e-3,1e-2,1e-1,1", "sweep.per_gpu=2", environ=visible)
    assert sweeper.found["slots"] == 2
    assert sweeper.states() == ["complete"] * 4

"""An evaluation takes every sample once, on any number of ranks."""

import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional as F

from phalanx.train.loading.fetch import PositionDataset
from phalanx.train.loading.order import SequentialOrder
from phalanx.train.loading.rng import seed_all
from phalanx.train.loading.shard import Span
from tests.ranks import Starter
from tests.runs.chance import Drawn, Normed, overrides


@pytest.mark.parametrize("numbers", [(1, 2, 3), pytest.param((1, 5), marks=pytest.mark.slow)])
def test_metrics_have_the_same_bits_on_any_number_of_ranks(starter: Starter, numbers: tuple[int, ...]) -> None:
    weights = starter.train(1, "model=mlp", "train.steps=5", name="weights").folder
    found = []
    for ranks in numbers:
        # A rate of 1e-300 leaves the weights as they were, so all evaluate the same ones; 359 samples in batches of 50.
        same = (f"train.init_from='{weights}'", "optim.lr=1e-300", "train.steps=1", "eval.batch=50", "model=mlp")
        run = starter.train(ranks, *same, name=f"on{ranks}")
        found.append({name: run.metrics("eval")[-1][name] for name in ("loss", "accuracy")})
    assert all(metrics == found[0] for metrics in found)


@pytest.mark.parametrize("batch", [1000, 7])
def test_every_sample_counts_once_whatever_the_batch(starter: Starter, batch: int) -> None:
    run = starter.train(3, "model=mlp", "train.steps=2", f"eval.batch={batch}", name="run")
    correct = run.metrics("eval")[-1]["accuracy"] * 359
    assert correct == pytest.approx(round(correct), abs=1e-9)


@pytest.mark.parametrize(("ranks", "workers"), [(1, 1), (2, 0), pytest.param(3, 1, marks=pytest.mark.slow)])
def test_no_sample_is_left_out_and_none_counts_twice(starter: Starter, ranks: int, workers: int) -> None:
    """23 samples in batches of 4. A task's ratios may count in what they like: here one a batch."""
    census = (
        *(word for word in overrides() if not word.startswith("task.")),
        "~task",
        "+task._target_=tests.runs.chance.Census",
        "data.eval._target_=tests.runs.chance.Numbered",
        "~data.eval.half",
        "checkpoint.best_metric=loss",
    )
    run = (*census, "train.steps=1", "eval.batch=4", f"data.workers={workers}")
    found = starter.train(ranks, *run, name="run").metrics("eval")[-1]
    assert found["mean"] == 11
    assert found["first"] == 253 / 6
    assert found["second"] == sum(i * i for i in range(23)) / 6
    assert found["batches"] == 1


def test_running_statistics_are_rank_0s_on_all_ranks(starter: Starter) -> None:
    """Each rank has its own; a checkpoint and an evaluation on all ranks have the same."""
    run = starter.train(2, *overrides("Normed"), "train.precision=fp64", "train.steps=7", "eval.batch=9", name="run")
    model = Normed().double().eval()
    model.load_state_dict(load_file(max(run.folder.glob("checkpoints/step_*[0-9]/model.safetensors"))))
    seed_all(0, torch.device("cpu"))
    inputs, labels = PositionDataset(Drawn(half=1), SequentialOrder(), None, 0).__getitems__(Span(0, 100))
    with torch.no_grad():
        loss = F.cross_entropy(model(inputs.double()), labels)
    assert run.metrics("eval")[-1]["loss"] == pytest.approx(float(loss), rel=1e-12)

"""An evaluation takes every sample once, on any number of ranks."""

import pytest

from tests.ranks import Starter


def test_metrics_have_the_same_bits_on_any_number_of_ranks(starter: Starter) -> None:
    weights = starter.train(1, "model=mlp", "train.steps=5", name="weights").folder
    found = []
    for ranks in (1, 2, 3, 5):
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

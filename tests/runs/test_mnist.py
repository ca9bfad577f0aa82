"""The source article's experiment on the real thing. Minutes long: PHALANX_MNIST=FOLDER pytest -m slow tests/runs"""

import os

import pytest

from tests.ranks import Starter, quoted

FOLDER = os.environ.get("PHALANX_MNIST")


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.skipif(FOLDER is None, reason="PHALANX_MNIST names no folder with the four IDX files of MNIST")
def test_mnist_reaches_99_percent_in_three_epochs(starter: Starter) -> None:
    assert FOLDER is not None
    data = (f"data.train.root={quoted(FOLDER)}", "data.train.download=false")
    run = starter.train(2, "experiment=mnist", "train.epochs=3", "log.every=50", *data, name="mnist")
    assert run.summary["samples"] == 180_000
    assert run.metrics("eval")[-1]["accuracy"] >= 0.99

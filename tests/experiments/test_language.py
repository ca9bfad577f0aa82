"""Texts: each experiment trains to the number in its head. Run with: pytest -m slow tests/experiments"""

import pytest

from tests.experiments.expected import reached
from tests.ranks import Starter

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]


@pytest.mark.parametrize("experiment", ["gpt", "sentiment", "text_classification", "translation"])
def test_an_experiment_over_texts_reaches_what_its_head_says(starter: Starter, experiment: str) -> None:
    run = starter.train(2, f"experiment={experiment}", name=experiment)
    assert reached(experiment, run.metrics("eval")[-1]), run.metrics("eval")

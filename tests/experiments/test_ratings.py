"""Ratings: the experiment trains to the number in its head. Run with: pytest -m slow tests/experiments"""

import pytest

from tests.experiments.expected import reached
from tests.ranks import Starter

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_ratings_are_predicted_as_well_as_the_head_says(starter: Starter, seed: int) -> None:
    run = starter.train(2, "experiment=ratings", f"seed={seed}", name=f"ratings-{seed}")
    assert reached("ratings", run.metrics("eval")[-1]), run.metrics("eval")

"""Pictures and clips: each experiment trains to the number in its head. Minutes long: pytest -m slow tests/experiments

The data come from package registries, into the cache that runs share.
"""

import statistics

import pytest

from tests.experiments.expected import reached
from tests.ranks import Starter

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]


@pytest.mark.parametrize("experiment", ["mnist", "satellite", "detection", "segmentation", "video"])
def test_an_experiment_reaches_what_its_head_says_and_never_waits_for_data(starter: Starter, experiment: str) -> None:
    run = starter.train(2, f"experiment={experiment}", name=experiment)
    assert reached(experiment, run.metrics("eval")[-1]), run.metrics("eval")
    waits = [line["data_wait_s"] / line["step_time_s"] for line in run.metrics("train")[1:]]
    assert statistics.median(waits) < 0.05

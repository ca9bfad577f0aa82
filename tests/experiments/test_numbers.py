"""Each experiment trains to the number in its head, and three seeds beat its baseline: pytest -m slow tests/experiments

An hour for all on two cores. The data come from package registries, into the cache that runs share.
"""

import statistics

import pytest

from tests.experiments.expected import EXPERIMENTS, Expected
from tests.ranks import Starter

# Steps of milliseconds, and speech, whose features two workers make on the cores of two ranks, wait for a tenth of a step.
WAITS = {"digits", "ratings", "sentiment", "speech_recognition", "speech_synthesis", "video"}

pytestmark = [pytest.mark.slow, pytest.mark.timeout(7200)]


def test_what_is_expected_of_an_experiment_is_better_than_its_baseline() -> None:
    for expected in map(Expected.of, EXPERIMENTS):
        assert expected.sign * expected.number > expected.sign * expected.baseline, expected


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_an_experiment_reaches_what_its_head_says_and_the_mean_of_three_seeds_beats_its_baseline(
    starter: Starter, experiment: str
) -> None:
    expected = Expected.of(experiment)
    runs = [starter.train(2, f"experiment={experiment}", f"seed={seed}", name=f"seed{seed}") for seed in range(3)]
    values = [expected.measured(run) for run in runs]
    assert all(expected.reached(value) for value in values), values
    assert expected.beaten(values), values
    if experiment not in WAITS:
        lines = [line for run in runs for line in run.metrics("train")[1:]]
        assert statistics.median(line["data_wait_s"] / line["step_time_s"] for line in lines) < 0.05

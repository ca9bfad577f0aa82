"""Language models: the experiment trains to the number in its head. Run with: pytest -m slow tests/experiments"""

import pytest

from tests.experiments.expected import reached
from tests.ranks import Starter

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]


def test_the_gpt_needs_fewer_bits_a_byte_than_its_head_says(starter: Starter) -> None:
    run = starter.train(2, "experiment=gpt", name="gpt")
    assert reached("gpt", run.metrics("eval")[-1]), run.metrics("eval")

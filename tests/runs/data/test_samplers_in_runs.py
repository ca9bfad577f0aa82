"""A sampler decides what is trained on, whatever the number of ranks, and over kills."""

import pytest

from tests.ranks import Starter, until
from tests.runs.data.test_collate import PAD, RUN, sentences
from tests.runs.test_equivalence import distance

WEIGHTED = "data.sampler={_target_:phalanx.samplers.Weighted,weights:balance}"
BUCKETS = "data.sampler={_target_:phalanx.samplers.Buckets,length:lengths,pool:2}"


@pytest.mark.parametrize(("sampler", "micro_batch"), [(WEIGHTED, "null"), (BUCKETS, "2")])
def test_a_sampler_is_the_same_on_any_ranks(starter: Starter, sampler: str, micro_batch: str) -> None:
    run = (*RUN, sentences(), PAD, sampler, "data.drop_last=true", f"train.micro_batch={micro_batch}")
    one, *others = [
        starter.train(ranks, *run, f"data.workers={ranks % 2}", "train.steps=14", name=f"on{ranks}")
        for ranks in (1, 2, 3)
    ]
    plain = starter.train(1, *RUN, sentences(), PAD, "train.steps=14", name="plain")
    assert one.sha256 != plain.sha256
    assert one.metrics("train")[-1]["epoch"] == pytest.approx(14 * 8 / 48)
    for other in others:
        assert distance(one, other) < 1e-12


def test_epochs_are_those_of_the_sampler_and_a_killed_run_goes_on_as_it_would_have(starter: Starter) -> None:
    run = (*RUN, sentences(), PAD, BUCKETS, "train.steps=null", "train.epochs=40", "checkpoint.every=10")
    undisturbed = starter.train(1, *run, name="undisturbed")
    assert undisturbed.summary["samples"] == 40 * 50
    world = starter.start(1, *run, "run.name=killed")
    until(lambda: starter.results("killed").reached(20))
    world.kill()
    world.wait()
    assert starter.train(1, *run, name="killed").sha256 == undisturbed.sha256


def test_a_sampler_that_does_not_fit_ends_before_training_with_one_message(starter: Starter) -> None:
    ended = starter.run(2, *RUN, sentences(), PAD, "data.sampler={_target_:phalanx.samplers.Weighted,weights:[1,2]}")
    assert ended.codes == [2, 2], ended.output
    assert ended.output.count("data.sampler.weights has 2 numbers, and the data set has 50 samples") == 1

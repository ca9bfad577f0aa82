"""Speech: each experiment trains to the number in its head, above its baseline. pytest -m slow tests/experiments"""

import statistics
from functools import cache
from pathlib import Path

import pytest

from phalanx.train.prepared.cache import Cache
from tests.experiments.expected import reached
from tests.experiments.heard import heard_word_error_rates
from tests.experiments.speech_baselines import mel_errors, nearest_neighbour
from tests.ranks import Nursery, Results, Starter

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600), pytest.mark.xdist_group("speech")]


class Trained:
    """Each experiment, trained once."""

    def __init__(self, starter: Starter) -> None:
        self.run = cache(lambda name: starter.train(2, f"experiment={name}", name=name))


@pytest.fixture(scope="module")
def trained(nursery: Nursery, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return Trained(Starter(nursery, Path(tmp_path_factory.mktemp("speech"))))


def never_waits(run: Results) -> bool:
    lines = run.metrics("train")[1:]
    return bool(statistics.median(line["data_wait_s"] / line["step_time_s"] for line in lines) < 0.05)


def test_words_and_phrases_are_recognised_better_than_by_the_nearest_clip(trained: Trained) -> None:
    run = trained.run("speech_recognition")
    found = {split: run.metrics(split)[-1] for split in ("words", "phrases")}
    assert reached("speech_recognition", found["phrases"]), found
    for split, share in (("words", 1), ("phrases", 0.5)):
        assert found[split]["wer"] < share * nearest_neighbour(Cache(), split), split
    assert never_waits(run)


def test_phrases_are_spoken_nearer_than_any_training_clip_and_are_understood(trained: Trained) -> None:
    run = trained.run("speech_synthesis")
    line = run.metrics("eval")[-1]
    assert reached("speech_synthesis", line), line
    assert line["mel_error"] < min(mel_errors(Cache()).values())
    heard = heard_word_error_rates(trained.run("speech_recognition"), run, Cache())
    assert heard["recorded"] <= heard["spoken"] < 0.5 * heard["shuffled"], heard
    assert never_waits(run)

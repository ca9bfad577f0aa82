"""Speech, against baselines that are computed beside it, and by ear. Run with: pytest -m slow tests/experiments"""

from functools import cache
from pathlib import Path

import pytest

from phalanx.train.prepared.cache import Cache
from tests.experiments.heard import heard_word_error_rates
from tests.experiments.speech_baselines import mel_errors, nearest_neighbour
from tests.ranks import Nursery, Starter

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600), pytest.mark.xdist_group("speech")]


class Trained:
    """Each experiment, trained once."""

    def __init__(self, starter: Starter) -> None:
        self.run = cache(lambda name: starter.train(2, f"experiment={name}", name=name))


@pytest.fixture(scope="module")
def trained(nursery: Nursery, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return Trained(Starter(nursery, Path(tmp_path_factory.mktemp("speech"))))


def test_words_and_phrases_are_recognised_better_than_by_the_nearest_clip(trained: Trained) -> None:
    run = trained.run("speech_recognition")
    found = {split: run.metrics(split)[-1] for split in ("words", "phrases")}
    for split, share in (("words", 1), ("phrases", 0.5)):
        assert found[split]["wer"] < share * nearest_neighbour(Cache(), split), split


def test_phrases_are_spoken_nearer_than_any_training_clip_and_are_understood(trained: Trained) -> None:
    run = trained.run("speech_synthesis")
    line = run.metrics("eval")[-1]
    assert line["mel_error"] < min(mel_errors(Cache()).values())
    heard = heard_word_error_rates(trained.run("speech_recognition"), run, Cache())
    assert heard["recorded"] <= heard["spoken"] < 0.5 * heard["shuffled"], heard

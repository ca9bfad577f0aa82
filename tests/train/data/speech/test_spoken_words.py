"""What eSpeak NG is asked to say: the same everywhere, and nothing of what is held out in training."""

import hashlib
from pathlib import Path

import pytest

from phalanx.exit.codes import ConfigError
from phalanx.train.data.speech.log_mel import LogMel
from phalanx.train.data.speech.spoken_words import HELD_OUT, SPLITS, WORDS, SpokenWords, Utterance, utterances
from phalanx.train.prepared.cache import Cache


def by_split(speakers: str) -> dict[str, list[Utterance]]:
    left = utterances(speakers)
    found = {}
    for split, clips in SPLITS[speakers].items():
        found[split], left = left[:clips], left[clips:]
    assert not left
    return found


def test_voices_and_phrases_that_are_held_out_are_in_no_training_clip() -> None:
    many = by_split("many")
    said = {split: {each.text for each in clips} for split, clips in many.items()}
    voices = {split: {each.voice.partition("+")[2] for each in clips} for split, clips in many.items()}
    assert voices["words"] | voices["phrases"] == set(HELD_OUT)
    assert not voices["train"] & set(HELD_OUT)
    assert not said["phrases"] & said["train"]
    assert said["words"] == set(WORDS) < said["train"]
    one = by_split("one")
    assert len({each.voice for each in utterances("one")}) == 1
    assert not {each.text for each in one["phrases"]} & {each.text for each in one["train"]}


@pytest.mark.parametrize(("speakers", "sha256"), [("many", "3eecd15e3a168e1d"), ("one", "211e0cd106d82589")])
def test_the_list_is_the_same_on_every_machine(speakers: str, sha256: str) -> None:
    assert hashlib.sha256(repr(utterances(speakers)).encode()).hexdigest()[:16] == sha256


def test_nothing_is_fetched_that_was_not_allowed_and_splits_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="phalanx prepare"):
        SpokenWords("train", LogMel(16000), Cache(tmp_path))
    with pytest.raises(ConfigError, match="speakers=many with split words, phrases, train"):
        SpokenWords("test", LogMel(16000), Cache(tmp_path))

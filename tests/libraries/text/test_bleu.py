"""BLEU and chrF are sacrebleu's of the whole set, however it is split over batches and ranks."""

import random
from typing import Any

import pytest

from phalanx.train.tasks.language.bleu import Bleu, ChrF

pytestmark = pytest.mark.zoo

WORDS = ["the", "package", "contains", "files,", "a", "library", "(for", "GNOME)", "of", "tools."]


def texts(seed: int, count: int) -> tuple[list[str], list[str]]:
    """Hypotheses and references that share some of their words."""
    drawn = random.Random(seed)
    references = [" ".join(drawn.choices(WORDS, k=drawn.randint(1, 12))) for _ in range(count)]
    hypotheses = [" ".join(w for w in each.split() if drawn.random() < 0.8) for each in references]
    return hypotheses, references


def merged(kind: type[Bleu] | type[ChrF], seed: int, ranks: int, batch: int) -> float:
    """Of 40 texts that ranks have consecutive batches of, some of them none."""
    hypotheses, references = texts(seed, 40)
    metrics: list[Any] = [kind() for _ in range(ranks)]
    starts = list(range(0, 40, batch))
    for number, start in enumerate(starts):
        piece = slice(start, start + batch)
        metrics[number * ranks // len(starts)].update(hypotheses[piece], references[piece])
    sent: list[Any] = [kind() for _ in range(ranks)]
    for each, metric in zip(sent, metrics, strict=True):
        each.load_state_dict(metric.state_dict())
    sent[0].merge(sent[1:])
    value: float = sent[0].compute()
    return value


@pytest.mark.parametrize(("ranks", "batch"), [(1, 40), (1, 7), (2, 16), (3, 1), (4, 20)])
def test_both_are_sacrebleus_of_the_whole_set(ranks: int, batch: int) -> None:
    from sacrebleu.metrics import BLEU, CHRF

    for seed in range(3):
        hypotheses, references = texts(seed, 40)
        assert merged(Bleu, seed, ranks, batch) == BLEU().corpus_score(hypotheses, [references]).score
        assert merged(ChrF, seed, ranks, batch) == CHRF().corpus_score(hypotheses, [references]).score


def test_of_texts_without_a_word_in_common_it_is_a_number() -> None:
    from sacrebleu.metrics import BLEU

    metric = Bleu()
    metric.update(["ab"], ["cd ef gh"])
    assert metric.compute() == BLEU().corpus_score(["ab"], [["cd ef gh"]]).score

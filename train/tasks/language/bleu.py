"""BLEU and chrF of a whole set, as sacrebleu computes them (Post 2018, "A Call for Clarity in Reporting BLEU Scores")."""

from collections.abc import Sequence
from typing import Any, Self

import numpy as np

from phalanx.exit.codes import ConfigError

from ..metric import Metric


class Bleu(Metric):
    """Corpus BLEU (Papineni et al. 2002) from 0 to 100, with one reference a sample, by sacrebleu's defaults.

    Kept are the matches and totals of each order of n-grams and the lengths: whole numbers, so that it is exact on any
    number of ranks. Its signature is nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp.
    """

    def __init__(self) -> None:
        self.counts = [0] * 10  # matches of 1 to 4 words, totals of each, words of hypotheses and of references

    def update(self, hypotheses: Sequence[str], references: Sequence[str]) -> None:
        found = scorer("BLEU")().corpus_score(list(hypotheses), [list(references)])
        new = [*found.counts, *found.totals, found.sys_len, found.ref_len]
        self.counts = [old + int(number) for old, number in zip(self.counts, new, strict=True)]

    def merge(self, others: Sequence[Self]) -> None:
        self.counts = np.sum([self.counts, *(other.counts for other in others)], axis=0).tolist()

    def compute(self) -> float:
        *ngrams, hypothesis, reference = self.counts
        found = scorer("BLEU").compute_bleu(
            ngrams[:4], ngrams[4:], hypothesis, reference, smooth_method="exp", effective_order=False
        )
        return float(found.score)


class ChrF(Metric):
    """Corpus chrF (Popović 2015) from 0 to 100, with one reference a sample, by sacrebleu's defaults. Keeps the texts."""

    def __init__(self) -> None:
        self.hypotheses: list[str] = []
        self.references: list[str] = []

    def update(self, hypotheses: Sequence[str], references: Sequence[str]) -> None:
        self.hypotheses += hypotheses
        self.references += references

    def merge(self, others: Sequence[Self]) -> None:
        for other in others:
            self.update(other.hypotheses, other.references)

    def compute(self) -> float:
        return float(scorer("CHRF")().corpus_score(self.hypotheses, [self.references]).score)


def scorer(name: str) -> Any:
    """A class of sacrebleu. Raises ConfigError where it is not installed."""
    try:
        import sacrebleu.metrics
    except ImportError:
        raise ConfigError(
            "BLEU is computed by sacrebleu, which is not installed. Type: pip install 'phalanx[translation]'"
        ) from None
    return getattr(sacrebleu.metrics, name)

"""Sentences whose sentiment twenty people rated each (Hutto & Gilbert 2014, "VADER", ICWSM)."""

import html
import io
import json
import tarfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from phalanx.exit.codes import ConfigError

from ...loading.rng import key
from ...prepared.cache import Cache, Output, Recipe
from ...prepared.downloads import Download, Pip
from .labelled_texts import LabelledTexts

PARTS = {
    "movies": "movieReviewSnippets",
    "tweets": "tweets",
    "amazon": "amazonReviewSnippets",
    "editorials": "nytEditorialSnippets",
}
CLASSES = ("negative", "positive")
_INNER = "vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz"
_FILE = "rated.json"
_TENTH = 10

_DOWNLOADS = (
    Download(
        ways=(Pip("vaderSentiment", "3.3.2", source=True),),
        sha256="5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9",
        licence="MIT",
        origin="Hutto & Gilbert 2014, VADER: A Parsimonious Rule-based Model for Sentiment Analysis, ICWSM",
    ),
)


class RatedSentences(LabelledTexts):
    """Sentences by the sign of their mean rating, 0 negative and 1 positive; those rated 0 are left out.

    `parts` are of movies (10,568 sentences of reviews), tweets, amazon (reviews) and editorials. The `split` held_out is a
    tenth of the documents of each, train the others. A document of amazon and editorials has several sentences.

    With `soft_labels` a sample has the probabilities of both classes instead, 1 / (1 + exp(-soft_labels * rating)) that of
    positive: what people disagree on counts for less. For training alone.
    """

    def __init__(
        self,
        parts: list[str],
        split: str,
        tokenizer: str,
        longest: int,
        lower: bool,
        cache: Cache,
        download: bool,
        soft_labels: float | None = None,
    ) -> None:
        if split not in ("train", "held_out"):
            raise ConfigError(f"The rated sentences have no split {split!r}. Type split=train or split=held_out")
        if unknown := [part for part in parts if part not in PARTS] or ([] if parts else ["none"]):
            raise ConfigError(f"The rated sentences have no part {unknown[0]!r}. Type some of parts={[*PARTS]}")
        folder = cache.prepared(Recipe("rated_sentences", 1, _DOWNLOADS, prepare), download)
        rated = json.loads((folder / _FILE).read_text(encoding="utf-8"))
        texts, ratings = [], []
        for part in parts:
            held_out = _held_out([document for document, _, _ in rated[part]])
            for (_, rating, text), out in zip(rated[part], held_out, strict=True):
                if rating and out == (split == "held_out"):
                    texts.append(text)
                    ratings.append(rating)
        probabilities = None if soft_labels is None else _probabilities(ratings, soft_labels)
        labels = [int(rating > 0) for rating in ratings]
        super().__init__(texts, labels, CLASSES, tokenizer, longest, lower, probabilities)


def _probabilities(ratings: Sequence[float], soft_labels: float) -> torch.Tensor:
    positive = torch.tensor(ratings, dtype=torch.float64).mul(soft_labels).sigmoid()
    return torch.stack([1 - positive, positive], 1).float()


def _held_out(documents: Sequence[int]) -> list[bool]:
    """Whether each is of the tenth of documents that a hash of their numbers chooses."""
    drawn: list[bool] = (key(0, np.array(documents, np.uint64)) % np.uint64(_TENTH) == 0).tolist()
    return drawn


def prepare(files: Sequence[Path], out: Output) -> None:
    """Write of each part its sentences: document, mean rating from -4 to 4, text."""
    with tarfile.open(files[0]) as outer:
        inner = io.BytesIO(_member(outer, _INNER))
    with tarfile.open(fileobj=inner) as archive:
        out.json(_FILE, {part: _sentences(archive, name) for part, name in PARTS.items()})


def _sentences(archive: tarfile.TarFile, name: str) -> list[tuple[int, float, str]]:
    content = _member(archive, f"hutto_ICWSM_2014/{name}_GroundTruth.txt").decode()
    rows = (line.split("\t", 2) for line in content.splitlines() if line.strip())
    return [(int(number.split("_")[0]), float(rating), html.unescape(text).strip()) for number, rating, text in rows]


def _member(archive: tarfile.TarFile, name: str) -> bytes:
    file = archive.extractfile(name)
    if file is None:
        raise ConfigError(f"the archive holds no {name}: it is another one")
    return file.read()

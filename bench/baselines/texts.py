"""What the text experiments have to beat, on their own splits: python bench/baselines/texts.py sentiment
(text_classification, translation). The data are those that `phalanx prepare experiment=…` has put into the cache.

sentiment, text_classification: logistic regression on words and pairs of words (TF-IDF), and the largest class.
translation: the source as it is, and each word replaced by its likeliest translation (IBM model 1, Brown et al. 1993).
"""

import re
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[2])

import numpy as np
from numpy.typing import NDArray

from phalanx.data import PackageSections, PackageTranslations, RatedSentences
from phalanx.train.data.text.labelled_texts import LabelledTexts
from phalanx.train.data.text.rated_sentences import PARTS
from phalanx.train.prepared.cache import Cache

_WHOLE = 1 << 20  # bytes of a text: all of it
_ROUNDS = 5  # of expectation and maximisation


def main() -> None:
    commands = {"sentiment": sentiment, "text_classification": sections, "translation": translation}
    if sys.argv[1:2] not in [[name] for name in commands]:
        sys.exit(f"Type one of {', '.join(commands)}")
    commands[sys.argv[1]]()


def sentiment() -> None:
    cache = Cache(*sys.argv[2:3])
    held_out = RatedSentences(["movies"], "held_out", "bytes", _WHOLE, False, cache, download=True)
    for parts in (["movies"], [*PARTS]):
        print(f"trained on {', '.join(parts)}:")
        train = RatedSentences(parts, "train", "bytes", _WHOLE, False, cache, download=True)
        bag_of_words(train, held_out, features=30_000)


def sections() -> None:
    cache = Cache(*sys.argv[2:3])
    train, held_out = (
        PackageSections(split, "bytes", _WHOLE, False, cache, download=True) for split in ("train", "held_out")
    )
    bag_of_words(train, held_out, features=20_000)


def bag_of_words(train: LabelledTexts, held_out: LabelledTexts, features: int) -> None:
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, min_df=2, max_features=features)
    model = LogisticRegression(C=5, max_iter=1000).fit(vectorizer.fit_transform(texts(train)), train.labels.numpy())
    found = model.predict(vectorizer.transform(texts(held_out)))
    labels = held_out.labels.numpy()
    largest = np.bincount(train.labels.numpy()).argmax()
    print(f"{len(train)} texts, {len(held_out)} held out, of {len(train.classes)} classes")
    print(
        f"largest class {(labels == largest).mean():.4f}, TF-IDF and logistic regression {(labels == found).mean():.4f}"
    )


def texts(dataset: LabelledTexts) -> list[str]:
    return [bytes(dataset[i][0].tolist()).decode() for i in range(len(dataset))]


def translation() -> None:
    from sacrebleu import corpus_bleu, corpus_chrf

    cache = Cache(*sys.argv[2:3])
    train, held_out = (
        PackageTranslations("de", split, 100, 4000, _WHOLE, cache, download=True) for split in ("train", "held_out")
    )
    (sources, targets), (given, wanted) = pairs(train), pairs(held_out)
    dictionary = likeliest(sources, targets)
    for name, found in (("copy", given), ("dictionary", [translated(text, dictionary) for text in given])):
        bleu, chrf = corpus_bleu(found, [wanted]).score, corpus_chrf(found, [wanted]).score
        print(f"{name}: BLEU {bleu:.2f}, chrF {chrf:.2f}, of {len(given)} paragraphs")


def pairs(dataset: PackageTranslations) -> tuple[list[str], list[str]]:
    samples = [dataset[i] for i in range(len(dataset))]
    return [dataset.decode(each["source"].tolist()) for each in samples], [each["reference"] for each in samples]


def translated(text: str, dictionary: dict[str, str]) -> str:
    return "".join(dictionary.get(part.lower(), part) for part in re.split(r"(\w+)", text))


def likeliest(sources: Sequence[str], targets: Sequence[str]) -> dict[str, str]:
    """The likeliest translation of each word, by IBM model 1: which words explain which, found in all pairs of texts."""
    words, others = vocabulary([s.lower() for s in sources]), vocabulary(targets)
    rows = [
        (np.array([words[w] for w in split(s.lower())] + [0]), np.array([others[w] for w in split(t)]))
        for s, t in zip(sources, targets, strict=True)
    ]
    source = np.concatenate([np.tile(s, len(t)) for s, t in rows])
    target = np.concatenate([np.repeat(t, len(s)) for s, t in rows])
    # The place of the target's word in the whole text: what its shares add up to one over.
    place = np.concatenate([np.repeat(np.arange(len(t)), len(s)) for s, t in rows])
    place += np.repeat(np.cumsum([0, *[len(t) for _, t in rows][:-1]]), [len(s) * len(t) for s, t in rows])
    both, pair = np.unique(source * len(others) + target, return_inverse=True)
    chance: NDArray[np.float64] = np.ones(len(both))
    for _ in range(_ROUNDS):
        share = chance[pair] / np.bincount(place, chance[pair])[place]
        count = np.bincount(pair, share)
        chance = count / np.bincount(both // len(others), count)[both // len(others)]
    best = both[np.argsort(chance, kind="stable")]  # the likeliest of each word comes last
    names, other_names = list(words), list(others)
    return {names[code // len(others)]: other_names[code % len(others)] for code in best.tolist()}


def vocabulary(texts: Sequence[str]) -> dict[str, int]:
    """The words by numbers; 0 is no word, which explains what nothing else does."""
    return {word: i for i, word in enumerate(dict.fromkeys(["", *(w for text in texts for w in split(text))]))}


def split(text: str) -> list[str]:
    return re.findall(r"\w+", text)


if __name__ == "__main__":
    main()

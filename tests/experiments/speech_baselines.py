"""What the speech experiments are held against: `python -m tests.experiments.speech_baselines [FOLDER OF data.cache]`.

Recognition: the transcript of the training clip that is nearest to a clip, by dynamic time warping over cepstra (Sakoe &
Chiba 1978), among single words for words and among phrases for phrases. Synthesis: the mean of all training frames, and the
recording of the training text that is nearest by edits.
"""

import sys

import numpy as np
import torch
from numpy.typing import NDArray

from phalanx.train.data.speech.log_mel import LogMel
from phalanx.train.data.speech.recordings import Recordings
from phalanx.train.data.speech.spoken_words import SpokenWords
from phalanx.train.prepared.cache import Cache
from phalanx.train.tasks.speech.edit_distance import edit_distance
from phalanx.train.tasks.speech.text_to_mel import mel_distance
from tests.experiments.composed import data_set

_CEPSTRA = 13


def main() -> None:
    cache = Cache(sys.argv[1] if len(sys.argv) > 1 else None)
    for split in ("words", "phrases"):
        print(f"nearest neighbour, {split}: wer {nearest_neighbour(cache, split):.4f}", flush=True)
    for name, error in mel_errors(cache).items():
        print(f"{name}: mel_error {error:.4f}", flush=True)


def nearest_neighbour(cache: Cache, split: str) -> float:
    """The word error rate on a split of spoken words in many voices."""
    features = LogMel(16000, hop_s=0.02)
    train, asked = (SpokenWords(name, features, cache, download=True) for name in ("train", split))
    alike = [i for i, text in enumerate(train.texts) if (" " in text) == (split == "phrases")]
    sequences = [_cepstra(train, i) for i in alike]
    lengths = np.array([len(each) for each in sequences])
    padded = np.zeros((len(sequences), lengths.max(), _CEPSTRA), np.float32)
    for row, each in zip(padded, sequences, strict=True):
        row[: len(each)] = each
    edits = words = 0
    for i, text in enumerate(asked.texts):
        found = train.texts[alike[int(_warped(_cepstra(asked, i), padded, lengths).argmin())]]
        edits += edit_distance(text.split(), found.split())
        words += len(text.split())
    return edits / words


def mel_errors(cache: Cache) -> dict[str, float]:
    """`mel_error` of `speech_synthesis` where each clip is spoken as the mean frame, and as the nearest training text."""
    train, asked = (data_set("speech_synthesis", split, cache) for split in ("train", "eval"))
    recorded = [_features(asked, i) for i in range(len(asked))]
    mean = torch.cat([_features(train, i) for i in range(len(train))]).mean(0)
    nearest = [_features(train, int(np.argmin([edit_distance(a, b) for b in train.texts]))) for a in asked.texts]
    ways = {"mean frame": [mean.expand(len(each), -1) for each in recorded], "nearest text": nearest}
    return {name: mel_error(spoken, recorded) for name, spoken in ways.items()}


def mel_error(spoken: list[torch.Tensor], recorded: list[torch.Tensor]) -> float:
    pairs = list(zip(spoken, recorded, strict=True))
    return sum(mel_distance(*pair) for pair in pairs) / sum(len(one) + len(other) for one, other in pairs)


def shuffled_error(texts: list[str]) -> float:
    """The word error rate of answering each text with another one: what no listening reaches."""
    pairs = list(zip(texts, texts[1:] + texts[:1], strict=True))
    return sum(edit_distance(a.split(), b.split()) for a, b in pairs) / sum(len(text.split()) for text in texts)


def _features(data: Recordings, index: int) -> torch.Tensor:
    return data.collate([data[index]])["features"][0]


def _cepstra(data: Recordings, index: int) -> NDArray[np.float32]:
    """(frames, 13): the discrete cosine transform of the log-mel bands, which are normalized over the clip."""
    features = _features(data, index)
    bands = features.shape[1]
    angles = torch.outer(torch.arange(_CEPSTRA), torch.arange(bands) + 0.5) * torch.pi / bands
    return np.asarray(features @ angles.cos().T)


def _warped(one: NDArray[np.float32], others: NDArray[np.float32], lengths: NDArray[np.int64]) -> NDArray[np.float64]:
    """The mean cost of the best path from `one` (n, d) to each of `others` (k, longest, d), as time_warping.py has it."""
    costs = torch.cdist(torch.from_numpy(one)[None], torch.from_numpy(others)).numpy()  # (k, n, longest)
    count, rows, columns = costs.shape
    before = np.full((count, rows + 1), np.inf)
    earlier = before.copy()
    found: NDArray[np.float64] = np.empty(count)
    for diagonal in range(rows + columns - 1):
        row = np.arange(max(0, diagonal - columns + 1), min(rows, diagonal + 1))
        here = costs[:, row, diagonal - row]
        now = np.full((count, rows + 1), np.inf)
        if diagonal:
            now[:, row + 1] = np.minimum(
                earlier[:, row] + 2 * here, np.minimum(before[:, row], before[:, row + 1]) + here
            )
        else:
            now[:, 1] = 2 * here[:, 0]
        ends = lengths - 1 == diagonal - (rows - 1)
        found[ends] = now[ends, rows]
        earlier, before = before, now
    weighted: NDArray[np.float64] = found / (rows + lengths)
    return weighted


if __name__ == "__main__":
    main()

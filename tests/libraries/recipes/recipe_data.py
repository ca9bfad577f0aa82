"""What the recipes of docs/recipes are trained on: written into a folder, small and as users have it."""

import csv
import math
import random
import wave
from pathlib import Path

import numpy as np


def photos(folder: Path) -> None:
    """The digits as JPEGs, in a folder for each class."""
    from PIL import Image
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    for i, (image, label) in enumerate(zip(images[:180], labels[:180], strict=True)):
        place = folder / "photos" / ("train" if i < 140 else "val") / str(label)
        place.mkdir(parents=True, exist_ok=True)
        grey = Image.fromarray((image.reshape(8, 8) * 15.9).astype("uint8"))
        grey.convert("RGB").resize((32 + i % 5, 32)).save(place / f"{i}.jpg")


def text(folder: Path) -> None:
    """English from the standard library's own help."""
    from pydoc_data.topics import topics

    (folder / "text.txt").write_text("\n".join(topics.values())[:40_000].encode("ascii", "replace").decode())


def recordings(folder: Path) -> None:
    """A tone for each letter, of 400 samples or so, in texts of 2 to 9 letters."""
    draw = random.Random(0)
    for split, count in (("train", 48), ("test", 12)):
        place = folder / "recordings" / split
        place.mkdir(parents=True)
        rows = []
        for i in range(count):
            said = "".join(draw.choice("abcde") for _ in range(draw.randint(2, 9)))
            tones = [_tone(200 + 150 * "abcde".index(letter), draw.randint(350, 450)) for letter in said]
            samples = (np.concatenate(tones) * 12_000).astype(np.int16)
            with wave.open(str(place / f"{i}.wav"), "wb") as file:
                file.setparams((1, 2, 8000, 0, "NONE", ""))
                file.writeframes(samples.tobytes())
            rows.append([f"{i}.wav", f"{len(samples) / 8000:.4f}", said])
        with open(place / "transcripts.csv", "w", newline="") as file:
            csv.writer(file).writerows([["file", "seconds", "text"], *rows])


def _tone(hertz: float, samples: int) -> "np.ndarray[tuple[int], np.dtype[np.float64]]":
    times = np.arange(samples) / 8000
    return np.sin(2 * math.pi * hertz * times) * np.hanning(samples)


def reviews(folder: Path) -> None:
    """Lines of praise and of blame, and a BERT of two small layers with a vocabulary of its own."""
    from transformers import BertConfig, BertForSequenceClassification, BertTokenizerFast

    words = {"1": ["good", "great", "lovely", "superb"], "0": ["bad", "poor", "awful", "weak"]}
    filler = ["the", "film", "was", "a", "really", "very", "with", "plot", "actors", "and"]
    draw = random.Random(0)
    for split, count in (("train", 96), ("test", 24)):
        lines = []
        for i in range(count):
            label = str(i % 2)
            said = [draw.choice([*filler, *words[label]]) for _ in range(draw.randint(3, 20))]
            lines.append(f"{label}\t{' '.join([*said, draw.choice(words[label])])}\n")
        (folder / f"{split}.tsv").write_text("".join(lines))
    model = folder / "bert"
    model.mkdir()
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *filler, *words["1"], *words["0"]]
    (model / "vocab.txt").write_text("\n".join(vocabulary) + "\n")
    BertTokenizerFast(vocab_file=str(model / "vocab.txt")).save_pretrained(model)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=128,
    )
    BertForSequenceClassification(config).save_pretrained(model)


def nothing(folder: Path) -> None:
    """The data set makes its samples itself."""

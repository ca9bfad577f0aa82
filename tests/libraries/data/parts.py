"""What the configs of test_data name beside the libraries' own callables."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from phalanx import Ratio, Task

WORDS = [f"word{number}" for number in range(30)]


def tokenizer() -> Any:
    """A tokenizer of whole words, built without a file."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(WordLevel({"[PAD]": 0, "[UNK]": 1, **{word: i + 2 for i, word in enumerate(WORDS)}}, "[UNK]"))
    made.pre_tokenizer = Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=made, pad_token="[PAD]", unk_token="[UNK]")


def sentences(samples: int) -> Any:
    """A data set of Hugging Face's, tokenized, of sentences of 2 to 9 words."""
    from datasets import Dataset

    draw = np.random.default_rng(0)
    texts = [" ".join(draw.choice(WORDS, draw.integers(2, 10))) for _ in range(samples)]
    found = Dataset.from_dict({"text": texts, "label": draw.integers(0, 3, samples).tolist()})
    encode = tokenizer()
    return found.map(lambda row: dict(encode(row["text"])), remove_columns=["text"])


def bert() -> nn.Module:
    from transformers import BertConfig, BertForSequenceClassification

    config = BertConfig(
        vocab_size=len(WORDS) + 2,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        max_position_embeddings=16,
        num_labels=3,
    )
    return BertForSequenceClassification(config)  # type: ignore[no-any-return]


class Classify(Task):
    """The batch is what transformers' collator gives, a BatchEncoding."""

    def ratios(self, model: nn.Module, batch: Any) -> dict[str, Ratio]:
        assert type(batch).__name__ == "BatchEncoding"
        labels = batch["labels"]
        logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        return {"loss": Ratio(cross_entropy(logits, labels, reduction="sum"), len(labels))}


def write_images(folder: Path) -> None:
    """JPEGs of two classes, in a folder for each."""
    from PIL import Image

    draw = np.random.default_rng(0)
    for name, level in (("dark", 60), ("light", 180)):
        (folder / name).mkdir(parents=True)
        for number in range(20):
            pixels = draw.integers(level - 50, level + 50, (24, 20 + number % 3, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number}.jpeg")


def boxes(samples: int) -> Any:
    """Images of different sizes with different numbers of boxes, as torchvision's detectors take them."""
    from torchvision import tv_tensors

    draw = torch.Generator().manual_seed(0)
    made = []
    for number in range(samples):
        height = 8 + number % 5
        corners = torch.rand(number % 3, 2, generator=draw) * 4
        held = tv_tensors.BoundingBoxes(torch.cat([corners, corners + 2], 1), format="XYXY", canvas_size=(height, 10))
        made.append((torch.rand(3, height, 10, generator=draw), {"boxes": held, "name": f"image {number}"}))
    return made


def columns(samples: Any) -> Any:
    return tuple(zip(*samples, strict=True))


class CountBoxes(Task):
    """Regression of the number of boxes, on lists of images and of dicts."""

    def ratios(self, model: nn.Module, batch: Any) -> dict[str, Ratio]:
        images, targets = batch
        assert all(type(target["boxes"]).__name__ == "BoundingBoxes" for target in targets)
        assert all(
            target["boxes"].canvas_size == image.shape[1:] for image, target in zip(images, targets, strict=True)
        )
        assert all(target["name"].startswith("image ") for target in targets)
        means = model(torch.stack([image.mean((1, 2)) for image in images])).squeeze(1)
        wanted = torch.tensor([float(len(target["boxes"])) for target in targets]).to(means)
        return {"loss": Ratio((means - wanted).square().sum(), len(wanted))}

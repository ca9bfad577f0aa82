"""Models and data as people bring them: pictures, texts of any length in a dict, pairs for a recommender."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.utils.data import Dataset

from phalanx import Ratio, Task


class Pictures(Dataset[tuple[torch.Tensor, int]]):
    """`samples` colour images of 32x32 pixels, brighter by class."""

    classes = ("dark", "grey", "light", "white")

    def __init__(self, samples: int, seed: int) -> None:
        draw = torch.Generator().manual_seed(seed)
        self.labels = torch.randint(0, 4, (samples,), generator=draw)
        self._images = torch.randn(samples, 3, 32, 32, generator=draw) + self.labels[:, None, None, None]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self._images[index], int(self.labels[index])


class Texts(Dataset[tuple[torch.Tensor, int]]):
    """`samples` texts of 3 to 19 tokens, padded to the longest of a batch."""

    def __init__(self, samples: int, seed: int) -> None:
        draw = torch.Generator().manual_seed(seed)
        lengths = torch.randint(3, 20, (samples,), generator=draw).tolist()
        self._texts = [torch.randint(1, 50, (length,), generator=draw) for length in lengths]

    def __len__(self) -> int:
        return len(self._texts)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self._texts[index], int(self._texts[index].float().mean() > 25)

    def collate(self, samples: list[tuple[torch.Tensor, int]]) -> dict[str, torch.Tensor]:
        tokens = nn.utils.rnn.pad_sequence([text for text, _ in samples], batch_first=True)
        labels = torch.tensor([label for _, label in samples])
        return {"input_ids": tokens, "attention_mask": (tokens > 0).long(), "labels": labels}


class Pairs(Dataset[dict[str, torch.Tensor]]):
    """Ratings of `samples` pairs of 30 users and 40 items."""

    def __init__(self, samples: int, seed: int) -> None:
        draw = torch.Generator().manual_seed(seed)
        self._pairs = torch.stack([torch.randint(0, n, (samples,), generator=draw) for n in (30, 40)], 1)

    def __len__(self) -> int:
        return len(self._pairs)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        user, item = self._pairs[index]
        return {"users": user, "items": item, "ratings": ((user * 7 + item * 3) % 5).float()}

    def preprocessing(self) -> Mapping[str, Any]:
        return {"users": {"kind": "index", "size": 30}, "items": {"kind": "index", "size": 40}}


class Factors(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.users, self.items, self.out = nn.Embedding(30, 8), nn.Embedding(40, 8), nn.Linear(16, 1)

    def forward(self, users: torch.Tensor, items: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.out(torch.cat([self.users(users), self.items(items)], -1)).squeeze(-1)
        return found


class Rating(Task):
    def ratios(self, model: nn.Module, batch: Any) -> Mapping[str, Ratio]:
        errors = model(items=batch["items"], users=batch["users"]) - batch["ratings"]
        return {"loss": Ratio(errors.square().sum(), len(errors))}

    def derive(self, sums: Mapping[str, Any]) -> Mapping[str, float]:
        return {"rmse": math.sqrt(sums["loss"].mean)}

    def postprocessing(self) -> Mapping[str, Any]:
        return {"kind": "value"}


class Recurrent(nn.Module):
    """A GRU, of which torch.export follows one length alone; its answer is a dict."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.gru, self.out = nn.Embedding(50, 16), nn.GRU(16, 16, batch_first=True), nn.Linear(16, 2)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> dict[str, torch.Tensor]:
        states, _ = self.gru(self.table(input_ids))
        mask = attention_mask.unsqueeze(-1).float()
        return {"logits": self.out((states * mask).sum(1) / mask.sum(1)), "states": states}


class Decides(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.out = nn.Linear(3 * 32 * 32, 4)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.out(images.flatten(1))
        return 2 * logits if logits.sum() > 0 else logits


def bert() -> nn.Module:
    from transformers import BertConfig, BertForSequenceClassification

    sizes = {
        "vocab_size": 50,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 64,
    }
    made: nn.Module = BertForSequenceClassification(BertConfig(**sizes, max_position_embeddings=64, num_labels=2))
    return made


def gpt() -> nn.Module:
    from transformers import GPT2Config, GPT2LMHeadModel

    made: nn.Module = GPT2LMHeadModel(GPT2Config(vocab_size=50, n_embd=32, n_layer=2, n_head=2, n_positions=64))
    return made


class Tokens(Texts):
    """For a causal model, whose labels are the tokens."""

    def collate(self, samples: list[tuple[torch.Tensor, int]]) -> dict[str, torch.Tensor]:
        found = super().collate(samples)
        return {**found, "labels": torch.where(found["input_ids"] > 0, found["input_ids"], -100)}

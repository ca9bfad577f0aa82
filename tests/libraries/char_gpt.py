"""A GPT on characters, as its author writes one: a text, a model whose embedding is tied to its output, a task."""

import os
import signal
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import Dataset

from phalanx import Ratio, Task

TEXT = "the quick brown fox jumps over the lazy dog and packs my box with five dozen jugs; how vexing it is. " * 6
LETTERS = sorted(set(TEXT))


class Text(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """Windows of `length` characters, and the characters that follow. Who fetches `kill_at` kills itself, once."""

    def __init__(self, length: int, kill_at: int | None = None) -> None:
        self.codes = torch.tensor([LETTERS.index(letter) for letter in TEXT])
        self.length, self._kill_at = length, kill_at

    def __len__(self) -> int:
        return len(self.codes) - self.length

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        if index == self._kill_at and not Path("killed").exists():
            Path("killed").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        window = self.codes[index : index + self.length + 1]
        return window[:-1], window[1:]


class Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.heads = heads

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        query, key, value = self.qkv(self.ln_1(x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + self.proj(mixed.transpose(1, 2).flatten(2))
        found: torch.Tensor = x + self.down(F.gelu(self.up(self.ln_2(x))))
        return found


class GPT(nn.Module):
    def __init__(self, width: int = 16, layers: int = 2, heads: int = 2, length: int = 12) -> None:
        super().__init__()
        self.wte, self.wpe = nn.Embedding(len(LETTERS), width), nn.Embedding(length, width)
        self.h = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.ln_f, self.lm_head = nn.LayerNorm(width), nn.Linear(width, len(LETTERS), bias=False)
        self.lm_head.weight = self.wte.weight

    def forward(self, codes: torch.Tensor) -> torch.Tensor:
        x = self.wte(codes) + self.wpe.weight[: codes.shape[1]]
        for block in self.h:
            x = block(x)
        logits: torch.Tensor = self.lm_head(self.ln_f(x))
        return logits


class NextCharacter(Task):
    counts_data = True

    def ratios(self, model: nn.Module, batch: tuple[torch.Tensor, torch.Tensor]) -> Mapping[str, Ratio]:
        codes, following = batch
        loss = F.cross_entropy(model(codes).flatten(0, 1), following.flatten(), reduction="sum")
        return {"loss": Ratio(loss, following.numel())}

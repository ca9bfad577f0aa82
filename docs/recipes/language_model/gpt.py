"""A character GPT: text, model and task."""

import math
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

from phalanx import Ratio, Task


class Characters(torch.utils.data.Dataset):
    """Windows of `length` characters of a text file, each with the character that follows every one of them."""

    def __init__(self, file, length, share):
        text = Path(file).read_text(encoding="utf-8")
        self.alphabet = sorted(set(text))
        codes = torch.tensor([self.alphabet.index(character) for character in text])
        begin, end = (int(part * len(codes)) for part in share)
        self.codes, self.length = codes[begin:end], length

    def __len__(self):
        return (len(self.codes) - 1) // self.length

    def __getitem__(self, index):
        window = self.codes[index * self.length : (index + 1) * self.length + 1]
        return window[:-1], window[1:]


class Block(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x):
        q, k, v = self.qkv(self.norm1(x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        x = x + self.out(F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(-2))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class GPT(nn.Module):
    def __init__(self, vocabulary, length, width, heads, layers):
        super().__init__()
        self.tokens, self.positions = nn.Embedding(vocabulary, width), nn.Embedding(length, width)
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(layers)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, vocabulary, bias=False)

    def forward(self, codes):
        return self.head(self.norm(self.blocks(self.tokens(codes) + self.positions.weight[: codes.shape[1]])))


class LanguageModel(Task):
    counts_data = True  # the loss is a mean over tokens

    def ratios(self, model, batch):
        codes, following = batch
        loss = F.cross_entropy(model(codes).flatten(0, 1), following.flatten(), reduction="sum")
        return {"loss": Ratio(loss, following.numel())}

    def derive(self, sums):
        total, count = sums["loss"]
        return {"perplexity": math.exp(total / count)}

"""Recordings with their transcripts: data, a small wav2vec-style network, and a CTC task."""

import csv
import wave
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from phalanx import Metric, Ratio, Task, Update

ALPHABET = "_ abcdefghijklmnopqrstuvwxyz'"  # the first is CTC's blank


class Recordings(torch.utils.data.Dataset):
    """A folder of WAV files (mono, 16 bits) with transcripts.csv: file, seconds, text."""

    def __init__(self, folder):
        self.folder = Path(folder)
        with open(self.folder / "transcripts.csv", newline="") as rows:
            self.rows = list(csv.DictReader(rows))
        self.lengths = [float(row["seconds"]) for row in self.rows]

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        row = self.rows[index]
        with wave.open(str(self.folder / row["file"])) as file:
            samples = np.frombuffer(file.readframes(file.getnframes()), np.int16).astype(np.float32) / 32768
        return torch.from_numpy(samples), torch.tensor([ALPHABET.index(letter) for letter in row["text"]])

    def collate(self, samples):
        waves, texts = zip(*samples, strict=True)
        lengths = [torch.tensor([len(part) for part in parts]) for parts in (waves, texts)]
        return pad_sequence(waves, batch_first=True), lengths[0], pad_sequence(texts, batch_first=True), lengths[1]


class Wav2Letter(nn.Module):
    """Convolutions over the waveform, as wav2vec 2.0's feature encoder, then a transformer (Baevski et al. 2020)."""

    STRIDES = (8, 4, 4)

    def __init__(self, width, layers):
        super().__init__()
        channels = [1, *[width] * len(self.STRIDES)]
        self.convolutions = nn.ModuleList(
            nn.Conv1d(before, width, 2 * stride, stride) for before, stride in zip(channels, self.STRIDES, strict=False)
        )
        layer = nn.TransformerEncoderLayer(width, 4, 2 * width, dropout=0.1, batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.letters = nn.Linear(width, len(ALPHABET))

    def forward(self, waves, lengths):
        """Waves (b, samples) to log probabilities (b, frames, letters), and how many frames each recording has."""
        x = waves[:, None]
        for convolution, stride in zip(self.convolutions, self.STRIDES, strict=True):
            x, lengths = F.gelu(convolution(x)), (lengths - 2 * stride) // stride + 1
        padding = torch.arange(x.shape[-1], device=lengths.device) >= lengths[:, None]
        x = self.encoder(x.transpose(1, 2), src_key_padding_mask=padding)
        return self.letters(x).log_softmax(-1), lengths


class CTC(Task):
    def ratios(self, model, batch):
        waves, wave_lengths, texts, text_lengths = batch
        logs, frames = model(waves, wave_lengths)
        loss = F.ctc_loss(logs.transpose(0, 1), texts, frames, text_lengths, reduction="sum", zero_infinity=True)
        ratios = {"loss": Ratio(loss, len(waves))}
        return ratios if model.training else {**ratios, "cer": Update(logs.argmax(-1), frames, texts, text_lengths)}

    def metrics(self):
        return {"cer": CharacterErrorRate()}


class CharacterErrorRate(Metric):
    """Insertions, deletions and substitutions over the letters of the transcripts; greedy decoding."""

    def __init__(self):
        self.errors = self.letters = 0

    def update(self, best, frames, texts, lengths):
        for row, count, text, length in zip(best.tolist(), frames, texts.tolist(), lengths, strict=True):
            said = [letter for i, letter in enumerate(row[:count]) if letter and (i == 0 or letter != row[i - 1])]
            self.errors += distance(said, text[:length])
            self.letters += int(length)

    def merge(self, others):
        self.errors += sum(other.errors for other in others)
        self.letters += sum(other.letters for other in others)

    def compute(self):
        return self.errors / max(self.letters, 1)


def distance(one, other):
    """Levenshtein's."""
    row = list(range(len(other) + 1))
    for i, a in enumerate(one, 1):
        before, row[0] = row[0], i
        for j, b in enumerate(other, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (a != b))
    return row[-1]

"""Text to log-mel features, all frames at once."""

import torch
from torch import nn
from torch.nn import functional as F

from phalanx.exit.codes import ConfigError

from ...loading.padding_mask import padding_mask
from .alignment import monotonic_alignment

_KERNEL = 5
_LONGEST = 500  # frames of a token: what an untrained model says may be any number, and has to fit into memory


class FastSpeech(nn.Module):
    """FastSpeech (Ren et al. 2019) of convolutions, which learns how long each token lasts by itself.

    An encoder makes of each token a first guess of its frames, `prior`; monotonic alignment search between these and the
    recorded frames (as in Glow-TTS, Kim et al. 2020) says which frames are whose, in place of another model's attention.
    A decoder refines what the tokens, each repeated over its frames, have guessed. Durations are predicted for texts of
    which there is no recording.
    """

    def __init__(
        self, tokens: int, mels: int, width: int, layers: int, dropout: float, mean: float = 0.0, std: float = 1.0
    ) -> None:
        """`tokens`: with the padding, 0; `layers`: of encoder and decoder each; `mean`, `std`: of features, roughly."""
        super().__init__()
        self.mels, self.mean, self.std = mels, mean, std
        self.embedding = nn.Embedding(tokens, width)
        self.encoder = nn.ModuleList(_Block(width, 1, dropout) for _ in range(layers))
        self.prior = nn.Linear(width, mels)
        self.duration = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 1))
        self.place = nn.Linear(3, width)
        self.decoder = nn.ModuleList(_Block(width, 2**layer, dropout) for layer in range(layers))
        self.refined = nn.Linear(width, mels)

    def forward(
        self,
        tokens: torch.Tensor,
        token_lengths: torch.Tensor,
        features: torch.Tensor | None = None,
        lengths: torch.Tensor | None = None,
    ) -> dict[str, torch.Tensor]:
        """What is said of tokens (b, characters), of which the first `token_lengths` (b,) count.

        `mel` and `prior` (b, frames, mels), `lengths` (b,), `alignment` (b, frames): the token of each frame, and
        `log_durations` (b, characters), as predicted. With the `features` (b, frames, mels) that were recorded, and their
        `lengths`, frames are theirs and `durations` (b, characters) how they were aligned.
        """
        if features is not None and features.shape[2] != self.mels:
            raise ConfigError(
                f"model.mels={self.mels}, and the features have {features.shape[2]}. Type the same for both"
            )
        there = padding_mask(token_lengths, tokens.shape[1])[:, :, None]
        text = self.embedding(tokens)
        for block in self.encoder:
            text = block(text, there)
        prior = self.prior(text)
        log_durations = self.duration(text.detach())[:, :, 0]
        if features is None or lengths is None:
            durations = log_durations.exp().round().nan_to_num(1).clamp(1, _LONGEST)
            durations = (durations * there[:, :, 0]).long()
            lengths = durations.sum(1)
            ends = durations.cumsum(1)
            frames = torch.arange(int(lengths.max()), device=tokens.device).expand(len(tokens), -1).contiguous()
            alignment = torch.searchsorted(ends, frames, right=True).clamp(max=tokens.shape[1] - 1)
        else:
            alignment = self._aligned(prior, (features - self.mean) / self.std, token_lengths, lengths)
            durations = _counts(alignment, lengths, tokens.shape[1])
        mel = self._decoded(text, prior, alignment, durations, lengths)
        return {
            **{"mel": mel * self.std + self.mean, "prior": _taken(prior, alignment) * self.std + self.mean},
            **{"lengths": lengths, "alignment": alignment, "log_durations": log_durations, "durations": durations},
        }

    def _aligned(
        self, prior: torch.Tensor, features: torch.Tensor, token_lengths: torch.Tensor, lengths: torch.Tensor
    ) -> torch.Tensor:
        with torch.no_grad():
            prior, features = prior.float(), features.float()
            products = prior @ features.transpose(1, 2)
            # The frame's own square is the same for all tokens.
            return monotonic_alignment(2 * products - prior.square().sum(2, keepdim=True), token_lengths, lengths)

    def _decoded(
        self,
        text: torch.Tensor,
        prior: torch.Tensor,
        alignment: torch.Tensor,
        durations: torch.Tensor,
        lengths: torch.Tensor,
    ) -> torch.Tensor:
        there = padding_mask(lengths, alignment.shape[1])[:, :, None]
        starts = durations.cumsum(1) - durations
        since = torch.arange(alignment.shape[1], device=text.device) - starts.gather(1, alignment)
        lasts = durations.gather(1, alignment).clamp(min=1)
        place = torch.stack([since / lasts, 1 - since / lasts, lasts.log()], -1).to(text.dtype)
        x = _taken(text, alignment) + self.place(place)
        for block in self.decoder:
            x = block(x, there)
        found: torch.Tensor = _taken(prior, alignment) + self.refined(x)
        return found


class _Block(nn.Module):
    """A residual convolution over time."""

    def __init__(self, width: int, dilation: int, dropout: float) -> None:
        super().__init__()
        self.convolution = nn.Conv1d(width, width, _KERNEL, padding=_KERNEL // 2 * dilation, dilation=dilation)
        self.norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: torch.Tensor, there: torch.Tensor) -> torch.Tensor:
        """x (b, length, width), and which of it is there (b, length, 1)."""
        made = self.convolution((x * there).transpose(1, 2)).transpose(1, 2)
        found: torch.Tensor = x + self.dropout(F.relu(self.norm(made)))
        return found


def _taken(values: torch.Tensor, alignment: torch.Tensor) -> torch.Tensor:
    """Of values a token (b, tokens, n) those of each frame's token (b, frames, n)."""
    return values.gather(1, alignment[:, :, None].expand(-1, -1, values.shape[2]))


def _counts(alignment: torch.Tensor, lengths: torch.Tensor, tokens: int) -> torch.Tensor:
    """Frames of each token, (b, tokens)."""
    counted = padding_mask(lengths, alignment.shape[1]).long()
    return torch.zeros(len(alignment), tokens, dtype=torch.int64, device=alignment.device).scatter_add_(
        1, alignment, counted
    )

"""Which token each frame belongs to: the likeliest monotonic alignment."""

import torch
from torch.nn import functional as F


def monotonic_alignment(scores: torch.Tensor, token_lengths: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """The token of each frame, (b, frames), int64: monotonic alignment search (Kim et al. 2020, algorithm 1).

    `scores` (b, tokens, frames) are log likelihoods. Of all ways to give each of the first `lengths` (b,) frames one of
    the first `token_lengths` (b,) tokens, in order, none left out, it is the one with the highest sum. Where a clip has
    fewer frames than tokens its first tokens have none.
    """
    batch, tokens, frames = scores.shape
    worst = torch.finfo(scores.dtype).min / 4  # sums of it stay finite
    best = torch.full((batch, tokens), worst, dtype=scores.dtype, device=scores.device)
    best[:, 0] = scores[:, 0, 0]
    moves = [torch.zeros(batch, tokens, dtype=torch.bool, device=scores.device)]  # from the token before
    for frame in range(1, frames):
        before = F.pad(best[:, :-1], (1, 0), value=worst)
        moves.append(before > best)
        best = torch.maximum(before, best).clamp(min=worst) + scores[:, :, frame]
    token = token_lengths - 1
    path = []
    for frame in range(frames - 1, -1, -1):
        path.append(token)
        came = moves[frame].gather(1, token[:, None])[:, 0] & (frame < lengths)
        token = (token - came.long()).clamp(min=0)
    return torch.stack(path[::-1], 1)

"""Which positions of padded sequences are there."""

import torch


def padding_mask(lengths: torch.Tensor, longest: int) -> torch.Tensor:
    """(b, longest), bool, of sequences of `lengths` (b,) that have their padding at the end."""
    return torch.arange(longest, device=lengths.device) < lengths.unsqueeze(1)

"""Attention and blocks, beside torch's own."""

import pytest
import torch
from torch import nn

from phalanx.train.loading.padding_mask import padding_mask
from phalanx.train.models.language.attention import CrossAttention, KeyValues, SelfAttention
from phalanx.train.models.language.blocks import Block, DecoderBlock

WIDTH, HEADS = 24, 3
LENGTHS = torch.tensor([7, 4, 1])
KEEP = padding_mask(LENGTHS, 7)


def torchs(own: SelfAttention | CrossAttention) -> nn.MultiheadAttention:
    """torch's attention with the same weights."""
    theirs = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True, dtype=torch.float64)
    inputs = [own.qkv] if isinstance(own, SelfAttention) else [own.q, own.kv]
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([layer.weight for layer in inputs]))
        theirs.in_proj_bias.copy_(torch.cat([layer.bias for layer in inputs]))
        theirs.out_proj.weight.copy_(own.out.weight)
        theirs.out_proj.bias.copy_(own.out.bias)
    return theirs


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("keep", [None, KEEP])
def test_self_attention_is_that_of_torch(causal: bool, keep: torch.Tensor | None) -> None:
    own, x = SelfAttention(WIDTH, HEADS, 0.0, causal=causal).double(), torch.randn(3, 7, WIDTH).double()
    mask = torch.ones(7, 7, dtype=torch.bool).triu(1) if causal else None
    expected, weights = torchs(own)(
        x, x, x, key_padding_mask=None if keep is None else ~keep, attn_mask=mask, average_attn_weights=False
    )
    torch.testing.assert_close(own(x, keep), expected)
    torch.testing.assert_close(own.weights(x, keep).double(), weights, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("keep", [None, KEEP])
def test_cross_attention_is_that_of_torch(keep: torch.Tensor | None) -> None:
    own = CrossAttention(WIDTH, HEADS, 0.0).double()
    x, memory = torch.randn(3, 5, WIDTH).double(), torch.randn(3, 7, WIDTH).double()
    expected, weights = torchs(own)(
        x, memory, memory, key_padding_mask=None if keep is None else ~keep, average_attn_weights=False
    )
    torch.testing.assert_close(own(x, memory, keep), expected)
    torch.testing.assert_close(own.weights(x, memory, keep).double(), weights, atol=1e-6, rtol=1e-5)


def test_padding_changes_nothing_and_a_sequence_of_padding_alone_is_no_nan() -> None:
    block, x = Block(WIDTH, HEADS, 32, 0.0, causal=False), torch.randn(3, 7, WIDTH, requires_grad=True)
    other = x.detach().clone()
    other[~KEEP] = 1e3
    torch.testing.assert_close(block(x, KEEP)[KEEP], block(other, KEEP)[KEEP])
    answer = block(x, torch.zeros(3, 7, dtype=torch.bool))
    answer.sum().backward()
    assert answer.isfinite().all()
    assert x.grad is not None
    assert x.grad.isfinite().all()


def test_no_token_of_a_causal_block_sees_what_follows() -> None:
    block, x = Block(WIDTH, HEADS, 32, 0.0, causal=True), torch.randn(1, 7, WIDTH)
    other = x.clone()
    other[:, 4:] += 1.0
    torch.testing.assert_close(block(x)[:, :4], block(other)[:, :4])
    assert (block(x)[:, 4:] - block(other)[:, 4:]).abs().min() > 0


def test_tokens_one_by_one_get_what_they_get_at_once() -> None:
    """And in pieces of any length, as a prompt is read at once."""
    block, decoder = Block(WIDTH, HEADS, 32, 0.0, causal=True), DecoderBlock(WIDTH, HEADS, 32, 0.0)
    x, memory = torch.randn(3, 6, WIDTH), torch.randn(3, 7, WIDTH)
    cache, caches = KeyValues(6), (KeyValues(6), KeyValues(7))
    pieces = torch.split(x, [2, 1, 3], dim=1)
    torch.testing.assert_close(torch.cat([block(piece, cache=cache) for piece in pieces], 1), block(x))
    found = torch.cat([decoder(piece, memory, KEEP, caches) for piece in pieces], 1)
    torch.testing.assert_close(found, decoder(x, memory, KEEP))
    with pytest.raises(ValueError, match="7 tokens are more than the 6"):
        block(x[:, :1], cache=cache)


def test_heads_that_do_not_divide_the_width_are_told() -> None:
    with pytest.raises(ValueError, match="width=24 is not divided by heads=5"):
        Block(24, 5, 32, 0.0, causal=True)

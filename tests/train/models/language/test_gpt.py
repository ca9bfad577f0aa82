"""GPT: its size as published, its initial weights, generation, and the operator in it."""

import math

import pytest
import torch
from torch import nn

from phalanx.train.models.language.gpt import GPT, drawn


def small(fused: bool = False, dropout: float = 0.0) -> GPT:
    torch.manual_seed(0)
    return GPT(vocabulary=11, length=8, width=12, heads=3, layers=2, dropout=dropout, fused=fused)


def sharp() -> GPT:
    """With logits that differ, as those of a model that has learned something."""
    model = small().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(20 if parameter.dim() == 2 else 1)
    return model


def test_gpt2_has_as_many_parameters_as_published() -> None:
    with torch.device("meta"):
        model = GPT(vocabulary=50257, length=1024, width=768, heads=12, layers=12, dropout=0.0, fused=True)
        assert sum(parameter.numel() for parameter in model.parameters()) == 124_439_808
        assert model(torch.zeros(2, 1024, dtype=torch.int64)).shape == (2, 1024, 50257)


def test_initial_weights_are_those_of_gpt2() -> None:
    model = GPT(vocabulary=500, length=100, width=96, heads=3, layers=8, dropout=0.0, fused=False)
    for name, parameter in model.named_parameters():
        if "norm" in name:
            assert parameter.eq(1.0 if name.endswith("weight") else 0.0).all(), name
        elif name.endswith("bias"):
            assert parameter.eq(0.0).all(), name
        else:
            residual = name.endswith(("out.weight", "down.weight"))
            expected = 0.01 if "positions" in name else 0.02 / (4.0 if residual else 1.0)
            assert float(parameter.detach().std()) == pytest.approx(expected, rel=0.05), name
    loss = nn.functional.cross_entropy(model(torch.arange(100)[None]).flatten(0, 1), torch.arange(100, 200))
    assert float(loss.detach()) == pytest.approx(math.log(500), rel=0.02)


def test_the_fused_operator_changes_no_bit_on_a_cpu() -> None:
    """Dropout included: so a run with model.fused=true has the weights of one without."""
    tokens = torch.randint(0, 11, (3, 8))
    gradients = []
    for fused in (False, True):
        model = small(fused, dropout=0.1)
        torch.manual_seed(1)
        model(tokens).logsumexp(-1).sum().backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    for plain, ours in zip(*gradients, strict=True):
        assert plain is not None
        assert ours is not None
        assert plain.equal(ours)


def test_generation_with_kept_keys_and_values_is_that_without() -> None:
    """Also past `length`, where the newer half is read again."""
    model, tokens = sharp(), torch.tensor([[1, 2, 3], [4, 5, 6]])
    found = model.generate(tokens, 12, temperature=0)
    expected, begun = tokens, 0
    for _ in range(12):
        if expected.shape[1] - begun > model.length:
            begun = expected.shape[1] - model.length // 2
        expected = torch.cat([expected, model(expected[:, begun:])[:, -1].argmax(-1, keepdim=True)], 1)
    assert found.tolist() == expected.tolist()
    assert len(set(found[0].tolist())) > 2


def test_drawn_tokens_follow_the_temperature_and_stay_among_the_likeliest() -> None:
    logits = torch.tensor([[3.0, 2.0, 1.0, 0.0]]).expand(4000, 4)
    generator = torch.Generator().manual_seed(0)
    found = drawn(logits, 0.5, 3, generator).flatten().bincount(minlength=4) / 4000
    expected = torch.tensor([6.0, 4.0, 2.0, -torch.inf]).softmax(0)
    torch.testing.assert_close(found, expected, atol=0.02, rtol=0)
    assert drawn(logits[:1], 0, None, None).item() == 0


def test_attention_maps_are_causal_and_add_up_to_one() -> None:
    maps = sharp().attention_maps(torch.tensor([[1, 2, 3, 4]]))
    assert maps.shape == (2, 1, 3, 4, 4)
    torch.testing.assert_close(maps.sum(-1), torch.ones(2, 1, 3, 4))
    assert maps.triu(1).eq(0).all()


def test_too_many_tokens_are_told_with_what_to_type() -> None:
    with pytest.raises(ValueError, match=r"9 tokens are more than model.length=8.*Type model.length=9"):
        small()(torch.zeros(1, 9, dtype=torch.int64))

"""The operator's kernel on the device: the reference's numbers, torch's checks, equal bits, and a compiled model."""

import pytest
import torch

from phalanx.train.models.language.gpt import GPT
from phalanx.train.ops import add_layer_norm_triton as kernels
from phalanx.train.ops.add_layer_norm import reference, reference_backward

pytestmark = pytest.mark.gpu

Four = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 2e-2}


def given(rows: int, width: int, dtype: torch.dtype) -> Four:
    torch.manual_seed(0)
    residual, weight = torch.randn(rows, width, device="cuda"), torch.rand(width, device="cuda")
    return residual, torch.randn_like(residual).to(dtype), weight, torch.randn_like(weight)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(("rows", "width"), [(1, 1), (7, 100), (5000, 768), (64, 12288)])
def test_the_kernel_computes_what_the_reference_does_to_the_same_bits_each_time(
    rows: int, width: int, dtype: torch.dtype
) -> None:
    four = given(rows, width, dtype)
    close(kernels.forward(*four, 1e-5, dtype), reference(*four, 1e-5, dtype), dtype)
    total, normed, means, scales = reference(*four, 1e-5, dtype)
    back = (torch.randn_like(total), torch.randn_like(normed), total, means, scales, four[2])
    found = kernels.backward(*back)
    close(found, reference_backward(*back), dtype)
    assert all(one.equal(other) for one, other in zip(found, kernels.backward(*back), strict=True))


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # of a tensor of opcheck's own
def test_torchs_own_checks_pass_on_the_device() -> None:
    four = tuple(each.requires_grad_() for each in given(5, 8, torch.float32))
    torch.library.opcheck(torch.ops.phalanx.add_layer_norm.default, (*four, 1e-5, torch.float32))


def test_a_compiled_gpt_has_the_logits_and_gradients_of_one_without_the_operator() -> None:
    """In one graph: the compiler sees the operator's shapes without running it."""
    found = []
    for fused in (False, True):
        torch.manual_seed(0)
        model = GPT(vocabulary=61, length=16, width=96, heads=4, layers=2, dropout=0.0, fused=fused).cuda()
        run = torch.compile(model, fullgraph=True) if fused else model
        tokens = torch.arange(32, device="cuda").view(2, 16)
        logits = run(tokens)
        logits.square().sum().backward()
        found.append([logits, *(parameter.grad for parameter in model.parameters() if parameter.grad is not None)])
    for plain, ours in zip(*found, strict=True):
        torch.testing.assert_close(plain, ours, atol=1e-4, rtol=1e-3)


def close(found: tuple[torch.Tensor, ...], expected: tuple[torch.Tensor, ...], dtype: torch.dtype) -> None:
    for ours, theirs in zip(found, expected, strict=True):
        scale = max(1.0, float(theirs.abs().max()))
        torch.testing.assert_close(ours, theirs, atol=TOLERANCE[dtype] * scale, rtol=0)

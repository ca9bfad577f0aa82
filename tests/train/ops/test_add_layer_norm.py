"""The operator beside torch's own two, by torch's own checks, and its kernel in Triton's interpreter."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from phalanx.train.ops import add_layer_norm as module
from phalanx.train.ops.add_layer_norm import add_layer_norm
from tests.ranks import ROOT

Four = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]
OPERATOR = torch.ops.phalanx.add_layer_norm.default


def tensors(*shape: int, dtype: torch.dtype = torch.float32) -> Four:
    """Residual, branch, weight and bias."""
    torch.manual_seed(0)
    weight, bias = 1 + 0.1 * torch.randn(shape[-1]), 0.1 * torch.randn(shape[-1])
    made = torch.randn(shape), torch.randn(shape), weight, bias
    residual, branch, weight, bias = (each.to(dtype).requires_grad_() for each in made)
    return residual, branch, weight, bias


def ours(given: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    residual, branch, weight, bias = given
    return add_layer_norm(residual, branch, weight, bias, 1e-5)


def plain(residual: torch.Tensor, branch: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> list[torch.Tensor]:
    total = residual + branch
    return [total, F.layer_norm(total, total.shape[-1:], weight, bias, 1e-5)]


def with_gradients(answers: Sequence[torch.Tensor], given: Four) -> list[torch.Tensor]:
    weights = [torch.linspace(-1, 1, each.numel(), dtype=each.dtype).view_as(each) for each in answers]
    return [*answers, *torch.autograd.grad(answers, given, weights)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_on_a_cpu_it_has_the_bits_of_torchs_two_operators(dtype: torch.dtype) -> None:
    """So a model has the same weights with it and without."""
    given = tensors(3, 5, 48, dtype=dtype)
    found = with_gradients(ours(given), given)
    for own, theirs in zip(found, with_gradients(plain(*given), given), strict=True):
        assert own.equal(theirs)


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # of a tensor of opcheck's own
def test_torchs_own_checks_of_an_operator_pass() -> None:
    """Schema, autograd, fake tensors, and torch.compile with shapes that vary."""
    residual, branch, weight, bias = tensors(3, 5, 8)
    cheap = ("test_schema", "test_faketensor")
    torch.library.opcheck(OPERATOR, (residual, branch, weight, bias, 1e-5, torch.float32))
    torch.library.opcheck(
        OPERATOR, (residual, branch.detach().bfloat16(), weight, bias, 1e-5, torch.bfloat16), test_utils=cheap
    )
    total, _, means, scales = OPERATOR(
        *(each.detach() for each in (residual, branch, weight, bias)), 1e-5, torch.float32
    )
    backward = torch.ops.phalanx.add_layer_norm_backward.default
    torch.library.opcheck(backward, (total, total, total, means, scales, weight.detach()))
    torch.library.opcheck(backward, (None, total, total, means, scales, weight.detach()), test_utils=cheap)


def test_gradients_are_those_of_differences() -> None:
    given = tensors(2, 3, 5, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda *each: ours(each), given)
    assert torch.autograd.gradcheck(lambda *each: ours(each)[1], given)  # of a model's last norm the sum is not taken
    assert torch.autograd.gradcheck(lambda *each: ours((*each, *given[2:]))[0], given[:2])


def test_under_autocast_the_sum_keeps_its_bits_and_what_a_matrix_takes_has_few() -> None:
    given = tensors(4, 16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        total, normed = ours(given)
    expected = plain(*given)
    assert total.equal(expected[0])
    assert normed.equal(expected[1].bfloat16())


def test_shapes_that_do_not_fit_are_told_before_memory_is_read() -> None:
    residual, branch, weight, bias = tensors(4, 16)
    with pytest.raises(ValueError, match=r"got \(4, 16\), \(3, 16\), \(16,\), \(16,\)"):
        add_layer_norm(residual, branch[:3], weight, bias, 1e-5)
    with pytest.raises(ValueError, match="of one type"):
        add_layer_norm(residual, branch, weight.double(), bias, 1e-5)


def test_the_kernel_computes_what_the_reference_does() -> None:
    """In a process of its own, as Triton decides at its import whether it interprets."""
    pytest.importorskip("triton")
    done = subprocess.run(
        [sys.executable, "-m", "tests.train.ops.interpreted"],
        env={**os.environ, "TRITON_INTERPRET": "1"},
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_kernel_compiles_for_gpus_that_are_not_here(tmp_path: Path) -> None:
    """To the machine code of an A100 and an H100."""
    pytest.importorskip("triton")
    done = subprocess.run(
        [sys.executable, "-m", "tests.train.ops.compiled"],
        env={**os.environ, "TRITON_CACHE_DIR": str(tmp_path)},
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_fake_tensors_have_the_operators_shapes() -> None:
    given = [each.detach().to("meta") for each in tensors(3, 16)]
    assert [each.shape for each in module._operator(*given, 1e-5, torch.bfloat16)] == [(3, 16), (3, 16), (3, 1), (3, 1)]

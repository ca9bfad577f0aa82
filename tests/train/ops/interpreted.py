"""The kernels in Triton's interpreter beside the reference: widths that are no powers of 2, types, and no rows."""

import itertools

import torch

from phalanx.train.ops import add_layer_norm_triton as kernels
from phalanx.train.ops.add_layer_norm import reference, reference_backward

TOLERANCE = {torch.float32: 2e-6, torch.bfloat16: 2e-2, torch.float16: 2e-3}


def main() -> None:
    torch.manual_seed(0)
    kernels._PROGRAMS = 3  # so that one has several rows
    for (rows, width), dtype in itertools.product([(2, 3), (7, 20)], TOLERANCE):
        compare(rows, width, dtype)
    empty = torch.empty(0, 16)
    assert kernels.forward(empty, empty, torch.ones(16), torch.ones(16), 1e-5, torch.float32)[0].shape == (0, 16)


def compare(rows: int, width: int, dtype: torch.dtype) -> None:
    residual, branch = torch.randn(rows, width), torch.randn(rows, width).to(dtype)  # as under autocast
    weight, bias = torch.rand(width) + 0.5, torch.randn(width)
    given = (residual, branch, weight, bias, 1e-5, dtype)
    expected = reference(*given)
    check(kernels.forward(*given), expected, dtype)
    total, _, means, scales = expected
    grads = torch.randn(rows, width), torch.randn(rows, width).to(dtype)
    for grad_total in (grads[0], None):
        back = (grad_total, grads[1], total, means, scales, weight)
        check(kernels.backward(*back), reference_backward(*back), dtype)
    half = (residual.to(dtype), branch, weight.to(dtype), bias.to(dtype), 1e-5, dtype)  # as in bf16_pure
    check(kernels.forward(*half), reference(*half), dtype)


def check(found: tuple[torch.Tensor, ...], expected: tuple[torch.Tensor, ...], dtype: torch.dtype) -> None:
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.dtype == theirs.dtype
        scale = max(1.0, float(theirs.abs().max()))
        torch.testing.assert_close(ours.float(), theirs.float(), atol=TOLERANCE[dtype] * scale, rtol=0)


if __name__ == "__main__":
    main()

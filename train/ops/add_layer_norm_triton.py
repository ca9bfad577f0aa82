# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"
# Triton reads the parameters of a kernel, and gives annotations a meaning of its own.
"""Add and normalise in one kernel: each row is read once and written twice, with what it takes in between in registers.

Imported where a tensor is on a GPU, and by tests in Triton's interpreter (TRITON_INTERPRET=1), which runs it on a CPU.
"""

import torch
import triton
import triton.language as tl

WIDEST = 1 << 14  # elements of a row, which one program holds in registers
_PROGRAMS = 256  # of the backward, each with sums of its own: fixed, so that bits do not depend on the GPU's size


@triton.jit
def _forward(residual, branch, weight, bias, total, normed, means, scales, width, eps, block: tl.constexpr):
    row = tl.program_id(0)
    columns = tl.arange(0, block)
    inside = columns < width
    at = row * tl.full([1], width, tl.int64) + columns  # there may be more elements than an int32 counts
    x = tl.load(residual + at, inside, 0.0).to(tl.float32) + tl.load(branch + at, inside, 0.0).to(tl.float32)
    x = x.to(total.dtype.element_ty)  # what is normalised is what is stored, rounded alike
    tl.store(total + at, x, inside)
    x = x.to(tl.float32)
    mean = tl.sum(x, 0) / width
    centred = tl.where(inside, x - mean, 0.0)
    scale = 1.0 / tl.sqrt(tl.sum(centred * centred, 0) / width + eps)
    tl.store(means + row, mean)
    tl.store(scales + row, scale)
    w = tl.load(weight + columns, inside, 0.0).to(tl.float32)
    b = tl.load(bias + columns, inside, 0.0).to(tl.float32)
    tl.store(normed + at, (centred * scale * w + b).to(normed.dtype.element_ty), inside)


@triton.jit
def _backward(
    grad_total,
    grad_normed,
    total,
    means,
    scales,
    weight,
    grad,
    weight_sums,
    bias_sums,
    rows,
    width,
    has_grad_total: tl.constexpr,
    block: tl.constexpr,
):
    program = tl.program_id(0)
    columns = tl.arange(0, block)
    inside = columns < width
    w = tl.load(weight + columns, inside, 0.0).to(tl.float32)
    wide = tl.full([1], width, tl.int64)
    weight_sum = tl.zeros([block], tl.float32)
    bias_sum = tl.zeros([block], tl.float32)
    for row in range(program, rows, tl.num_programs(0)):
        at = row * wide + columns
        scale = tl.load(scales + row)
        x = tl.load(total + at, inside, 0.0).to(tl.float32)
        hat = tl.where(inside, (x - tl.load(means + row)) * scale, 0.0)
        g = tl.load(grad_normed + at, inside, 0.0).to(tl.float32)
        weight_sum += g * hat
        bias_sum += g
        wg = w * g
        answer = (wg - tl.sum(wg, 0) / width - hat * (tl.sum(wg * hat, 0) / width)) * scale
        if has_grad_total:
            answer += tl.load(grad_total + at, inside, 0.0).to(tl.float32)
        tl.store(grad + at, answer.to(grad.dtype.element_ty), inside)
    tl.store(weight_sums + program * width + columns, weight_sum, inside)
    tl.store(bias_sums + program * width + columns, bias_sum, inside)


def forward(
    residual: torch.Tensor,
    branch: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
    eps: float,
    dtype: torch.dtype,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """The sum, that normalised as `dtype`, and the mean and the reciprocal deviation of each row, float32."""
    residual, branch = residual.contiguous(), branch.contiguous()
    total = torch.empty_like(residual, dtype=torch.promote_types(residual.dtype, branch.dtype))
    normed = torch.empty_like(total, dtype=dtype)
    means = torch.empty((*total.shape[:-1], 1), dtype=torch.float32, device=total.device)
    scales = torch.empty_like(means)
    width = total.shape[-1]
    if rows := means.numel():
        given = (residual, branch, weight.contiguous(), bias.contiguous(), total, normed, means, scales)
        _forward[(rows,)](*given, width, eps, **_shape(width))
    return total, normed, means, scales


def backward(
    grad_total: torch.Tensor | None,
    grad_normed: torch.Tensor,
    total: torch.Tensor,
    means: torch.Tensor,
    scales: torch.Tensor,
    weight: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The gradients of the sum's terms, of the weight and of the bias."""
    grad_normed = grad_normed.contiguous()
    first = grad_normed if grad_total is None else grad_total.contiguous()  # a pointer is wanted in any case
    grad = torch.empty_like(total)
    rows, width = means.numel(), total.shape[-1]
    programs = max(1, min(rows, _PROGRAMS))
    sums = torch.empty((2, programs, width), dtype=torch.float32, device=total.device)
    given = (first, grad_normed, total, means, scales, weight.contiguous(), grad, sums[0], sums[1], rows, width)
    _backward[(programs,)](*given, has_grad_total=grad_total is not None, **_shape(width))
    weight_grad, bias_grad = sums.sum(1).to(weight.dtype)
    return grad, weight_grad, bias_grad


def _shape(width: int) -> dict[str, int]:
    block = triton.next_power_of_2(width)
    return {"block": block, "num_warps": min(max(block // 256, 1), 8)}

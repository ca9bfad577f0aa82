"""Add a branch to the residual stream and normalise the sum: what stands between any two layers of a transformer.

Layer normalisation: Ba, Kiros & Hinton 2016. As an operator of torch's it works with autograd, autocast, torch.compile,
meta and fake tensors; on a GPU it is one Triton kernel, on a CPU the two operators of torch, with their very bits.
"""

from typing import Any

import torch
from torch.library import custom_op

Four = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]
Three = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def add_layer_norm(
    residual: torch.Tensor, branch: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, eps: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """`residual + branch` (..., width), and that normalised over its last dimension, with weight and bias (width,).

    Under autocast the latter is of autocast's type, as the matrix that takes it would cast it anyway. Raises ValueError
    where shapes or devices differ.
    """
    device = residual.device.type
    dtype = torch.promote_types(residual.dtype, branch.dtype)
    if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
    total, normed, _, _ = _operator(residual, branch, weight, bias, eps, dtype)
    return total, normed


def reference(
    residual: torch.Tensor,
    branch: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
    eps: float,
    dtype: torch.dtype,
) -> Four:
    """What the operator computes, in torch's own: with the mean and the reciprocal deviation of each row."""
    total = residual + branch
    wide = _wide(total.dtype)
    width = [total.shape[-1]]
    normed, means, scales = torch.native_layer_norm(total.to(wide), width, weight.to(wide), bias.to(wide), eps)
    return total, normed.to(dtype), means, scales


def reference_backward(
    grad_total: torch.Tensor | None,
    grad_normed: torch.Tensor,
    total: torch.Tensor,
    means: torch.Tensor,
    scales: torch.Tensor,
    weight: torch.Tensor,
) -> Three:
    """The gradients of the sum, of the weight and of the bias."""
    wide = _wide(total.dtype)
    given = (grad_normed.to(wide), total.to(wide), [total.shape[-1]], means, scales, weight.to(wide), weight.to(wide))
    grad, weight_grad, bias_grad = torch.ops.aten.native_layer_norm_backward(*given, [True, True, True])
    if grad_total is not None:
        grad = grad_total + grad
    return grad.to(total.dtype), weight_grad.to(weight.dtype), bias_grad.to(weight.dtype)


@custom_op("phalanx::add_layer_norm", mutates_args=())
def _operator(
    residual: torch.Tensor,
    branch: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
    eps: float,
    dtype: torch.dtype,
) -> Four:
    _check(residual, branch, weight, bias)
    return reference(residual, branch, weight, bias, eps, dtype)


@custom_op("phalanx::add_layer_norm_backward", mutates_args=())
def _backward_operator(
    grad_total: torch.Tensor | None,
    grad_normed: torch.Tensor,
    total: torch.Tensor,
    means: torch.Tensor,
    scales: torch.Tensor,
    weight: torch.Tensor,
) -> Three:
    return reference_backward(grad_total, grad_normed, total, means, scales, weight)


@_operator.register_kernel("cuda")
def _cuda(
    residual: torch.Tensor,
    branch: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
    eps: float,
    dtype: torch.dtype,
) -> Four:
    from . import add_layer_norm_triton as kernels  # here, as a CPU has no use for Triton

    _check(residual, branch, weight, bias)
    if _wide(residual.dtype) == torch.float64 or weight.numel() > kernels.WIDEST:
        return reference(residual, branch, weight, bias, eps, dtype)
    return kernels.forward(residual, branch, weight, bias, eps, dtype)


@_backward_operator.register_kernel("cuda")
def _cuda_backward(
    grad_total: torch.Tensor | None,
    grad_normed: torch.Tensor,
    total: torch.Tensor,
    means: torch.Tensor,
    scales: torch.Tensor,
    weight: torch.Tensor,
) -> Three:
    from . import add_layer_norm_triton as kernels

    given = (grad_total, grad_normed, total, means, scales, weight)
    if means.dtype == torch.float64 or weight.numel() > kernels.WIDEST:
        return reference_backward(*given)
    return kernels.backward(*given)


@_operator.register_fake
def _fake(
    residual: torch.Tensor,
    branch: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
    eps: float,
    dtype: torch.dtype,
) -> Four:
    """Shapes and types alone, for torch.compile and for meta tensors."""
    _check(residual, branch, weight, bias)
    total = torch.empty_like(
        residual, dtype=torch.promote_types(residual.dtype, branch.dtype), memory_format=torch.contiguous_format
    )
    stats = total.new_empty((*total.shape[:-1], 1), dtype=_wide(total.dtype))
    return total, torch.empty_like(total, dtype=dtype), stats, torch.empty_like(stats)


@_backward_operator.register_fake
def _fake_backward(
    grad_total: torch.Tensor | None,
    grad_normed: torch.Tensor,
    total: torch.Tensor,
    means: torch.Tensor,
    scales: torch.Tensor,
    weight: torch.Tensor,
) -> Three:
    return torch.empty_like(total), torch.empty_like(weight), torch.empty_like(weight)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Four) -> None:
    """Keep what the backward needs: the sum, which the next block keeps anyway, and two numbers a row."""
    residual, branch, weight, _, _, _ = inputs
    total, _, means, scales = output
    ctx.save_for_backward(total, means, scales, weight)
    ctx.mark_non_differentiable(means, scales)
    ctx.set_materialize_grads(False)  # of the last norm of a model nobody takes the sum
    ctx.dtypes = residual.dtype, branch.dtype


def _differentiate(ctx: Any, grad_total: Any, grad_normed: Any, *_: Any) -> tuple[torch.Tensor | None, ...]:
    """The sum's gradient is that of both its terms."""
    of_residual, of_branch = ctx.dtypes
    weight_grad = bias_grad = None
    grad = grad_total
    if grad_normed is not None:
        grad, weight_grad, bias_grad = _backward_operator(grad_total, grad_normed, *ctx.saved_tensors)
    terms = (None, None) if grad is None else (grad.to(of_residual), grad.to(of_branch))
    return *terms, weight_grad, bias_grad, None, None


_operator.register_autograd(_differentiate, setup_context=_keep)


def _wide(dtype: torch.dtype) -> torch.dtype:
    """The type that a row is normalised in."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def _check(residual: torch.Tensor, branch: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> None:
    """A kernel reads memory by these shapes, whatever lies there."""
    width = residual.shape[-1:]
    if residual.shape != branch.shape or weight.shape != width or bias.shape != width:
        shapes = ", ".join(str(tuple(each.shape)) for each in (residual, branch, weight, bias))
        raise ValueError(f"add_layer_norm wants (..., width) twice and (width,) twice, and got {shapes}")
    if len({each.device for each in (residual, branch, weight, bias)}) > 1 or weight.dtype != bias.dtype:
        kinds = ", ".join(f"{each.dtype} on {each.device}" for each in (residual, branch, weight, bias))
        raise ValueError(f"add_layer_norm wants tensors of one device, weight and bias of one type, and got {kinds}")

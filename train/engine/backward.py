"""The backward of a loss, from a gradient of its own."""

import torch
from torch.autograd import graph

_run = getattr(graph, "_engine_run_backward", None)  # no public name


def backward(loss: torch.Tensor, start: torch.Tensor) -> None:
    """Add to each parameter's gradient that of `loss` times `start`, of the same shape.

    Without torch.autograd.backward, which imports sympy to compare the two shapes: a fifth of a second of each start.
    """
    if _run is None:
        torch.autograd.backward(loss, start)
    else:
        _run((loss,), (start,), False, False, (), allow_unreachable=True, accumulate_grad=True)

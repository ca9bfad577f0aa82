"""Convolutions in channels-last (NHWC) memory order, where the model takes it."""

import torch
from torch import nn

from train.data.batch import Batch
from train.precision import Precision
from train.tasks.task import Task
from train.unchanged import unchanged
from train.world import World


def in_nhwc(model: nn.Module, task: Task, batch: Batch, precision: Precision, world: World) -> bool:
    """Give the weights of two-dimensional convolutions NHWC order; returns whether the model works with it.

    Such weights make what a convolution answers NHWC, which `.view` and code that counts on strides do not take. So a
    forward and a backward of a few samples are tried, which leave no trace. Only what works in the usual order alone
    speaks against it; whatever else is wrong the rehearsal tells better.
    """
    _lay_out(model, torch.channels_last)
    if _works(model, task, batch, precision, world):
        return True
    _lay_out(model, torch.contiguous_format)
    if _works(model, task, batch, precision, world):
        return False
    _lay_out(model, torch.channels_last)
    return True


def _lay_out(model: nn.Module, order: torch.memory_format) -> None:
    for module in model.modules():
        if isinstance(module, nn.Conv2d) and isinstance(module.weight, nn.Parameter):
            module.weight.data = module.weight.data.contiguous(memory_format=order)


def _works(model: nn.Module, task: Task, batch: Batch, precision: Precision, world: World) -> bool:
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    quick = torch.backends.cudnn.flags(enabled=torch.backends.cudnn.enabled, benchmark=False)
    with unchanged(model, task), quick:
        try:
            with precision.autocast(world.device):
                loss = task.ratios(model, batch)["loss"].total
            torch.autograd.grad(loss, parameters, allow_unused=True)
        except Exception:
            return False
    return True

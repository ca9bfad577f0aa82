"""Convolutions in channels-last (NHWC) memory order, where the model takes it."""

import torch
from torch import nn

from ...checkpoint.preserve import unchanged
from ...distributed.world import World
from ...loading.batch import Batch
from ...optim.precision import Precision
from ...tasks.answer import checked
from ...tasks.phases import ratios_of
from ...tasks.task import Task


class Convolutions:
    """The weights of a model's two-dimensional convolutions, which make what a convolution answers NHWC or NCHW."""

    def __init__(self, model: nn.Module) -> None:
        found = [module.weight for module in model.modules() if isinstance(module, nn.Conv2d)]
        self._made = [(weight, weight.data) for weight in found if isinstance(weight, nn.Parameter)]

    def __bool__(self) -> bool:
        return bool(self._made)

    def in_nhwc(self) -> None:
        for weight, made in self._made:
            # Not .contiguous(): of one channel it keeps strides that say NCHW, and so would what the convolution answers.
            weight.data = torch.empty_like(made, memory_format=torch.channels_last).copy_(made)

    def as_made(self) -> None:
        for weight, made in self._made:
            weight.data = made.copy_(weight.data)


def takes_nhwc(
    convolutions: Convolutions, model: nn.Module, task: Task, batch: Batch, precision: Precision, world: World
) -> bool:
    """Convert the convolutions to NHWC; returns whether the model works so, else converts them back.

    `.view` and code that relies on strides fail on NHWC outputs. So a forward and a backward of a few samples are tried,
    and all state is restored. A model that fails in its own order, too, is left to the sanity check to report.
    """
    convolutions.in_nhwc()
    if _works(model, task, batch, precision, world):
        return True
    convolutions.as_made()
    if _works(model, task, batch, precision, world):
        return False
    convolutions.in_nhwc()
    return True


def _works(model: nn.Module, task: Task, batch: Batch, precision: Precision, world: World) -> bool:
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    quick = torch.backends.cudnn.flags(enabled=torch.backends.cudnn.enabled, benchmark=False)
    with unchanged(model, task), quick:
        try:
            with precision.autocast(world.device):
                loss = checked(ratios_of(task, model, batch), trains=True)["loss"].total
            torch.autograd.grad(loss, parameters, allow_unused=True)
        except Exception:
            return False
    return True

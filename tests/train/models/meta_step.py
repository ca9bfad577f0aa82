"""A step of an experiment on tensors without values: shapes and settings at full size, without their memory."""

from typing import Any

import torch
from torch import nn

from phalanx.config.schema import Config
from phalanx.targets.instantiate import Targets
from phalanx.train.optim.make_optimizers import make_optimizers
from phalanx.train.schedules.make_rates import RatesMaker


def optimizer_on_meta(config: Config, builder: Targets, model: nn.Module, steps: int) -> Any:
    """The experiment's optimizer, of the parameters of a model on the meta device."""
    named = list(model.named_parameters())
    # Optimizers are tried on numbers when they are made: on a parameter of one number for each.
    small = [(name, nn.Parameter(torch.zeros([1] * parameter.dim()))) for name, parameter in named]
    rates = RatesMaker(builder, config.data, steps, lambda step: 0)
    (made,) = make_optimizers(config.optim, config.schedule, builder, model, small, {}, rates).optimizers
    whole = {id(each): parameter for (_, each), (_, parameter) in zip(small, named, strict=True)}
    for group in made.optimizer.param_groups:
        group["params"] = [whole[id(each)] for each in group["params"]]
    return made.optimizer

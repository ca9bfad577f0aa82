"""The experiment gpt2_124m: its batch, rates and groups, and a step on tensors without values."""

import pytest
import torch
from torch import nn

from phalanx.compose.compose import compose
from phalanx.config.limits import check
from phalanx.train.engine.parts.config_targets import check_targets, targets
from phalanx.train.schedules.schedule import Schedule, factors
from phalanx.train.tasks.language.language_modeling import LanguageModeling
from tests.train.models.meta_step import optimizer_on_meta


def test_the_published_configuration_takes_a_step_on_tensors_without_values() -> None:
    config = compose(["experiment=gpt2_124m", "world.device=cpu", "optim.fused=false"]).config
    check(config, ranks=8)
    builder = targets(config, foreign=False)
    check_targets(config, builder)
    steps, micro = config.train.steps, config.train.micro_batch
    assert steps is not None
    assert micro is not None
    assert config.train.global_batch * config.data.train["length"] == 524_288
    by_step = factors(builder.build(config.schedule, "schedule", Schedule), steps)  # type: ignore[type-abstract]
    assert by_step[700] == max(by_step) == pytest.approx(1.0)
    assert by_step[-1] == pytest.approx(0.1, abs=1e-3)
    with torch.device("meta"):
        model = builder.build(config.model, "model", nn.Module).train()
        tokens = torch.empty(micro, 1024, dtype=torch.int64)
    named = list(model.named_parameters())
    assert sum(parameter.numel() for _, parameter in named) == 124_439_808
    optimizer = optimizer_on_meta(config, builder, model, steps)
    for group in optimizer.param_groups:
        assert group["betas"] in ([0.9, 0.95], (0.9, 0.95))
    task = builder.build(config.task, "task", LanguageModeling)
    task._looked_at = {True, False}  # what the tokens' range is cannot be looked at
    loss = task.ratios(model, (tokens, tokens))["loss"].total
    torch.autograd.backward(loss)
    assert all(parameter.grad is not None and parameter.grad.shape == parameter.shape for _, parameter in named)
    optimizer.step()
    decayed = {id(each): group["weight_decay"] for group in optimizer.param_groups for each in group["params"]}
    assert all(decayed[id(each)] == (0.1 if each.dim() == 2 else 0.0) for _, each in named)

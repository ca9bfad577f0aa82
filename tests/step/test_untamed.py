"""Rehearsal, evaluation and saving leave a model that is not tame as they find it; all in the test's own process."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from tests.step.built import built_of, moved
from tests.step.small import planted
from tests.zoo.models import ZOO
from train.build import Parts
from train.compose import compose
from train.config import Config
from train.rehearse import rehearse
from train.weights import weights_sha256
from train.world import World

EVALUATED = ("data.eval={_target_: tests.step.planted.Planted, samples: 20}", "eval.batch=8", "train.steps=6")


@pytest.fixture(scope="module")
def config() -> Config:
    return compose([*planted(48), *EVALUATED, "train.ema_decay=0.9", "train.threads=1", "wandb.mode=disabled"]).config


def of_member(name: str, config: Config) -> tuple[Config, World, Parts]:
    """A run of a member of the zoo in place of the model, without the seconds that composing takes."""
    comes_and_goes = replace(config.parallel, find_unused=name == "ComesAndGoes")
    return built_of(replace(config, model={"_target_": f"tests.zoo.models.{name}"}, parallel=comes_and_goes))


def everything(item: object) -> Any:
    """All that a module holds, to be compared: parameters, buffers and attributes, modes, what these hold."""
    if isinstance(item, torch.Tensor):
        return str(item.dtype), item.tolist(), item.stride(), item.requires_grad
    if isinstance(item, torch.Generator):
        return item.get_state().tolist()
    if isinstance(item, dict):
        return {str(name): everything(value) for name, value in item.items()}
    if isinstance(item, list | tuple):
        return [everything(value) for value in item]
    return (
        everything(vars(item))
        if isinstance(item, nn.Module) or (hasattr(item, "__dict__") and not callable(item))
        else item
    )


def trained(parts: Parts, world: World, every: int | None) -> str:
    for work in parts.loader.from_step(0):
        parts.step(moved(work, parts.mover))
        if every is not None and work.step % every == 0:
            assert parts.evaluation is not None
            parts.evaluation(parts.state.model, parts.state.updater.average, world)
    return weights_sha256(parts.state.model.state_dict())


@pytest.mark.parametrize("name", ZOO)
def test_rehearsal_and_evaluation_leave_no_trace(name: str, config: Config, switches: None) -> None:
    config, world, parts = of_member(name, config)
    model = parts.state.model
    before = everything(model)
    rehearse(config, parts, world)
    assert everything(model) == before
    for work in parts.loader.from_step(4):
        parts.step(moved(work, parts.mover))
        before = everything(model)
        assert parts.evaluation is not None
        parts.evaluation(model, parts.state.updater.average, world)
        assert everything(model) == before


@pytest.mark.parametrize("name", ZOO)
def test_how_often_is_evaluated_changes_no_bit(name: str, config: Config, switches: None) -> None:
    found = set()
    for every in (1, None):
        config, world, parts = of_member(name, config)
        rehearse(config, parts, world)
        found.add(trained(parts, world, every))
    assert len(found) == 1

"""SampleBatch, evaluation and saving leave a model that is not tame as they find it; all in the test's own process."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from phalanx.compose.compose import compose
from phalanx.config.schema import Config, PrecisionName
from phalanx.train.checkpoint.weights import weights_sha256
from phalanx.train.distributed.world import World
from phalanx.train.engine.parts.build import Parts
from phalanx.train.engine.sanity_check import sanity_check
from tests.train.built_parts import built_of, moved
from tests.train.small_runs import planted
from tests.zoo.models import ZOO

EVALUATED = ("data.eval={_target_: tests.train.faulty_parts.Planted, samples: 20}", "eval.batch=8", "train.steps=6")


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
            evaluation = parts.evaluations.sets["eval"]
            evaluation(parts.state.model, parts.state.updater.average, world)
    return weights_sha256(parts.state.model.state_dict())


@pytest.mark.parametrize("name", ZOO)
def test_sanity_check_and_evaluation_leave_no_trace(name: str, config: Config, switches: None) -> None:
    config, world, parts = of_member(name, config)
    model = parts.state.model
    before = everything(model)
    sanity_check(config, parts, world)
    assert everything(model) == before
    for work in parts.loader.from_step(4):
        parts.step(moved(work, parts.mover))
        before = everything(model)
        evaluation = parts.evaluations.sets["eval"]
        evaluation(model, parts.state.updater.average, world)
        assert everything(model) == before


@pytest.mark.parametrize("name", ZOO)
def test_how_often_is_evaluated_changes_no_bit(name: str, config: Config, switches: None) -> None:
    found = set()
    for every in (1, None):
        config, world, parts = of_member(name, config)
        sanity_check(config, parts, world)
        found.add(trained(parts, world, every))
    assert len(found) == 1


def spoilt(name: str, config: Config, *steps: int) -> tuple[Parts, list[float]]:
    """A run in which the batches of `steps` are NaN, and which of its steps were skipped."""
    data = {**config.data.train, "spoilt": [8 * step for step in steps], "value": "nan"}
    _, world, parts = of_member(name, replace(config, data=replace(config.data, train=data)))
    sanity_check(config, parts, world)
    return parts, [float(parts.step(moved(work, parts.mover)).skipped) for work in parts.loader.from_step(0)]


@pytest.mark.parametrize("name", ["Centre", "Queue", "HiddenQueue", "Codebook", "Growing", "Norms", "Late", "Filled"])
@pytest.mark.parametrize("at", [0, 2])
def test_a_skipped_step_leaves_no_nan_in_any_buffer(name: str, at: int, config: Config, switches: None) -> None:
    """Also where a module assigns it anew, lets it grow, or made it in just that forward, with a flag beside it."""
    parts, skipped = spoilt(name, config, at)
    assert skipped == [float(step == at) for step in range(6)]
    assert all(buffer.isfinite().all() for buffer in parts.state.model.buffers())
    if name == "Filled":
        assert parts.state.model.get_buffer("table").tolist() == [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]


def test_parts_keep_their_dtypes_in_every_precision_and_double_doubles_the_usual_ones(
    config: Config, switches: None
) -> None:
    for precision, usual in ((PrecisionName.fp32, torch.float32), (PrecisionName.fp64, torch.float64)):
        numbers = replace(config, train=replace(config.train, precision=precision))
        model = of_member("Mixed", numbers)[2].state.model
        assert model.get_parameter("first.weight").dtype == usual
        assert model.get_parameter("fine.weight").dtype == model.get_buffer("since").dtype == torch.float64
        assert model.get_parameter("coarse.weight").dtype == torch.bfloat16
        assert int(model.get_buffer("since")) == 100_000_001
        _, _, parts = of_member("Complex", numbers)
        assert parts.state.model.get_parameter("spectrum").dtype == usual.to_complex()
        kept = (torch.float64, torch.float16, torch.bfloat16, torch.uint8, torch.int64, torch.bool)
        assert [parts.mover(torch.zeros(1, dtype=dtype)).dtype for dtype in kept] == list(kept)
        assert parts.mover(torch.zeros(1)).dtype == usual


def test_what_is_in_eval_mode_and_trains_is_told_at_the_start(config: Config, switches: None) -> None:
    for name, told in (("PretrainedInEval", ["body"]), ("FrozenBackbone", []), ("OwnTrain", ["norm"])):
        notes = of_member(name, config)[2].notes
        assert [note.partition(":")[0] for note in notes] == [
            f"{it} is in eval mode, and its parameters train" for it in told
        ]


def test_a_model_that_came_in_eval_mode_as_a_whole_trains_in_training_mode(config: Config, switches: None) -> None:
    """As `from_pretrained` leaves it; what is frozen in it stays as it came."""
    _, _, parts = of_member("WholeInEval", config)
    assert parts.notes == []
    modes = {name: module.training for name, module in parts.state.model.named_modules()}
    assert modes == {name: not name.startswith("backbone") for name in modes}
    assert "body.2" in modes


def test_convolutions_are_in_channels_last_order_where_the_model_takes_it(config: Config, switches: None) -> None:
    for name, taken in (("Imaging", True), ("Viewing", False)):
        _, _, parts = of_member(name, config)
        weight = parts.state.model.get_parameter("layers.2.weight")
        assert weight.stride()[1] == (1 if taken else weight[0, 0].numel())
        assert any("channels_last" in note for note in parts.notes) is not taken

"""Any optimizer trains as its author made it, over restarts, too, or is refused in words before it trains."""

import copy
import io
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from phalanx.exit.codes import ConfigError
from phalanx.targets.instantiate import Targets
from phalanx.train.optim.optimizer_average import OptimizerAverage
from phalanx.train.optim.optimizer_trial import Group
from tests.ranks import Starter
from tests.train.optim.updaters import Made, drawn, equal, small_model, trainable, updater_of
from tests.train.small_runs import planted
from tests.zoo.optimizers import REFUSED, TRAINABLE


def made_by(target: str, options: dict[str, Any], params: list[Group]) -> torch.optim.Optimizer:
    return Targets((), None).build({"_target_": target, **options}, "optim", torch.optim.Optimizer, params=params)


def made(model: nn.Module, target: str, options: dict[str, Any]) -> Made:
    return updater_of(model, {"_target_": target, **options})


@pytest.mark.parametrize("target", TRAINABLE)
def test_an_optimizer_steps_as_by_hand_and_goes_on_after_a_restart_with_the_same_bits(target: str) -> None:
    """Three steps by hand with the same clipping; then a file, a process of its own, and three more."""
    ours, by_hand = small_model(), small_model()
    for model in (ours, by_hand):
        _tag(model)
    one, reference = made(ours, target, TRAINABLE[target]), made_by(target, TRAINABLE[target], _one_group(by_hand))
    getattr(reference, "train", lambda: None)()
    for step in range(3):
        torch.manual_seed(step)
        one.step(drawn(ours, step))
        for parameter, gradient in zip(by_hand.parameters(), drawn(by_hand, step), strict=True):
            parameter.grad = gradient
        nn.utils.clip_grad_norm_(by_hand.parameters(), 1.0)
        torch.manual_seed(step)
        reference.step()
    for a, b in zip(ours.parameters(), by_hand.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)

    file = io.BytesIO()
    torch.save(one.updater.state(), file)
    file.seek(0)
    again = copy.deepcopy(ours)
    _tag(again)
    other = made(again, target, TRAINABLE[target])
    other.updater.load(torch.load(file, weights_only=True), 3)
    for step in range(3, 7):
        for each in (one, other):
            torch.manual_seed(step)
            norm, skipped = each.step(drawn(ours, step))
            assert norm > 0
            assert not skipped
    assert equal(ours.state_dict(), again.state_dict())


def _tag(model: nn.Module) -> None:
    """As models do whose parameters have rates of their own."""
    vars(next(model.parameters()))["lr_scale"] = 0.1


def _one_group(model: nn.Module) -> list[Group]:
    return [{"params": trainable(model)}]


@pytest.mark.parametrize("target", REFUSED)
def test_an_optimizer_that_cannot_be_kept_is_refused_before_it_touches_anything(target: str) -> None:
    model = small_model()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ConfigError, match=REFUSED[target]):
        made(model, target, {"lr": 0.01})
    assert equal(before, model.state_dict())
    assert all(parameter.grad is None or not parameter.grad.any() for parameter in model.parameters())


def test_a_schedule_that_no_rate_could_follow_is_refused() -> None:
    for name in ("RateLess", "Cooling"):
        target = f"tests.zoo.optimizers.{name}"
        model, options = small_model(), TRAINABLE[target]
        one = made(model, target, options)
        if name == "Cooling":
            one.step(drawn(model, 0))
            assert one.updater.rates(1, 1)["lr"] == pytest.approx(0.009)
        else:
            assert one.updater.rates(0, 0)["lr"] is None
        with pytest.raises(ConfigError, match=r"nothing for the schedule to set\. Type schedule=constant"):
            updater_of(
                model, {"_target_": target, **options}, {"_target_": "phalanx.schedules.Constant", "warmup_steps": 5}
            )


def test_an_optimizer_with_modes_is_evaluated_and_saved_in_its_eval_mode_and_trains_on_from_the_same_bits(
    starter: Starter,
) -> None:
    model = small_model()
    one = made(model, "tests.zoo.optimizers.Averaging", {"lr": 0.1})
    for step in range(3):
        one.step(drawn(model, step))
    trained, by_hand = copy.deepcopy(model.state_dict()), copy.deepcopy(one.optimizer)
    with OptimizerAverage([one.optimizer], model.parameters()).swapped_in():
        by_hand.eval()  # type: ignore[attr-defined]
        placed = [p for group in by_hand.param_groups for p in group["params"]]
        assert equal([p.detach() for p in model.parameters()], [p.detach() for p in placed])
        assert not equal(model.state_dict(), trained)
    assert equal(model.state_dict(), trained)

    own = ("~optim", "+optim={_target_:tests.zoo.optimizers.Averaging,lr:0.1,decay_1d:true}", "schedule=constant")
    run = (*planted(), *own, "train.steps=8", "data.eval={_target_:tests.train.faulty_parts.Planted,samples:40}")
    often = starter.train(1, *run, "eval.every=2", "checkpoint.every=4", name="often")
    once = starter.train(2, *run, name="once")
    assert often.metrics("eval")[-1]["loss"] == pytest.approx(once.metrics("eval")[-1]["loss"], rel=1e-5)
    assert often.sha256 == starter.train(1, *run, name="never").sha256
    last = often.folder / "checkpoints/step_00000008"
    assert not equal(load_file(last / "ema.safetensors"), load_file(last / "model.safetensors"))
    for word in ("train.ema_decay=0.9", "train.average_last=2"):
        ended = starter.run(1, *run, word, "checkpoint.every=4", "run.name=twice")
        assert (ended.codes, f"Type {word.partition('=')[0]}=null" in ended.output) == ([2], True)

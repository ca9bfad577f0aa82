"""A task with phases, a GAN: each phase is a forward, a backward and an update of its own parameters."""

import copy
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from phalanx.exit.codes import ConfigError
from phalanx.train.engine.phased_step import PhasedStep
from phalanx.train.freezing.phase_parameters import phase_parameters
from phalanx.train.loading.batch import Batch
from phalanx.train.loading.rng import integer, seed_all
from phalanx.train.tasks.task import Ratio, Task
from tests.ranks import DDP, ROOT, Results, Starter
from tests.train.built_parts import built, moved, warmed_up
from tests.train.faulty_parts import WIDTH
from tests.train.small_runs import killed_after, planted, undisturbed_and_killed

NOISE = 3
PHASES = {"d": "^discriminator", "g": "^generator"}


class Gan(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.generator = nn.Sequential(nn.Linear(NOISE, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, WIDTH))
        self.discriminator = nn.Sequential(nn.Linear(WIDTH, 8), nn.LeakyReLU(0.2), nn.Linear(8, 1))


class GanTask(Task):
    """`spoilt`: the generator's loss is no number in this step."""

    phases = PHASES

    def __init__(self, spoilt: int | None = None) -> None:
        self._spoilt = spoilt

    def ratios(self, model: nn.Module, batch: Batch) -> dict[str, Ratio]:
        assert isinstance(model, Gan)
        found = losses(model, batch[0], self.now.phase == "g")
        if self.now.phase == "g" and self.now.training and self.now.step == self._spoilt:
            found = found * float("nan")
        return {"loss": Ratio(found, len(batch[0]))}


def losses(model: Gan, images: torch.Tensor, of_generator: bool) -> torch.Tensor:
    fakes = model.generator(torch.randn(len(images), NOISE, dtype=images.dtype))
    if of_generator:
        return F.softplus(-model.discriminator(fakes)).sum()
    return (F.softplus(-model.discriminator(images)) + F.softplus(model.discriminator(fakes.detach()))).sum()


def run(**options: Any) -> tuple[str, ...]:
    return (
        *(word for word in planted(**options) if not word.startswith("model")),
        *("~model", "+model._target_=tests.train.freezing.test_phases.Gan"),
        *("~task", "+task._target_=tests.train.freezing.test_phases.GanTask"),
        *("optim=adam", "optim.lr=0.01", "train.clip_norm=0.3", "train.micro_batch=2", "train.ema_decay=0.9"),
        *("data.eval={_target_: tests.train.faulty_parts.Planted, samples: 20}", "eval.batch=8", "eval.every=4"),
        *("train.steps=8", "train.epochs=null", "checkpoint.every=3", "log.every=1"),
    )


def test_a_step_is_that_of_a_loop_written_by_hand(switches: None) -> None:
    config, _, parts = built([*run(), "train.precision=fp64", "schedule=constant"])
    warmed_up(parts)
    model = copy.deepcopy(parts.state.model).requires_grad_()
    assert isinstance(model, Gan)
    own = [list(model.discriminator.parameters()), list(model.generator.parameters())]
    optimizers = [torch.optim.Adam(parameters, lr=0.01, fused=True) for parameters in own]
    for plain in parts.loader.from_step(0):
        work = moved(plain, parts.mover)
        parts.step(work)
        for phase, optimizer in enumerate(optimizers):
            for parameter in model.parameters():
                parameter.grad = None
            for position, batch in work.micro_batches:
                seed_all(integer(config.seed, 4, position, phase), torch.device("cpu"))
                torch.autograd.backward(losses(model, batch[0], phase == 1) / work.samples)
            torch.nn.utils.clip_grad_norm_(own[phase], 0.3)
            optimizer.step()
    for name, parameter in model.state_dict().items():
        torch.testing.assert_close(parts.state.model.state_dict()[name], parameter, rtol=0, atol=1e-9)


def test_it_is_the_same_on_any_number_of_ranks_and_with_ddp(starter: Starter) -> None:
    double = ("train.precision=fp64", "optim=sgd", "optim.lr=0.1", "optim.momentum=0.9")
    one, parameters = starter.train(1, *run(), *double, name="one"), dict(Gan().named_parameters())
    first = one.metrics("train")[0]
    assert {"loss", "d/loss", "g/loss", "d/grad_norm", "g/grad_norm", "lr"} <= first.keys()
    assert first["loss"] == pytest.approx(first["d/loss"] + first["g/loss"])
    assert {"loss", "d/loss", "g/loss"} <= one.metrics("eval")[0].keys()
    for ranks, knobs in ((2, ()), (3, ()), (3, (DDP,)), (2, (DDP, "parallel.static_graph=true"))):
        other = starter.train(ranks, *run(), *double, *knobs, name=f"on{ranks}{len(knobs)}")
        for name in parameters:  # buffers are each rank's own
            torch.testing.assert_close(other.weights()[name], one.weights()[name], rtol=0, atol=1e-9)
        for line, its in zip(one.metrics("train"), other.metrics("train"), strict=True):
            assert its["g/grad_norm"] == pytest.approx(line["g/grad_norm"], rel=1e-9)


@pytest.mark.parametrize(("ranks", "knobs"), [(1, ()), (2, ()), (3, (DDP,))])
def test_it_is_killed_and_continues_to_the_same_bits(starter: Starter, ranks: int, knobs: tuple[str, ...]) -> None:
    frozen = "train.freeze=[{match: '^discriminator', from: 2, until: 5}]"
    own = "+optim.groups=[{match: '^generator', lr: 0.003, optimizer: {_target_: torch.optim.RMSprop}}]"
    undisturbed, killed = undisturbed_and_killed(starter, ranks, *run(kill_at=8 * 4), *knobs, frozen, own)
    assert [event["step"] for event in killed.events("resume")] == [3]
    assert killed.sha256 == undisturbed.sha256
    assert killed.timeless() == undisturbed.timeless()
    first = killed.metrics("train")[0]
    assert (first["lr/d"], first["lr/g"]) == (0.01, 0.003)


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_phase_whose_gradient_is_not_finite_is_skipped_alone(starter: Starter, ranks: int) -> None:
    every = ("checkpoint.every=1", "+task.spoilt=5")
    found = starter.train(ranks, *run(), *every, name="run")
    before, after = (weights(found, step) for step in (5, 6))
    moved = {
        name.split(".")[0] for name in dict(Gan().named_parameters()) if not torch.equal(before[name], after[name])
    }
    assert moved == {"discriminator"}
    assert [event["skipped_step"] for event in found.events("skip")] == [6]


def weights(results: Results, step: int) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(results.folder / "checkpoints" / f"step_{step:08d}" / "model.safetensors")


def test_the_recipe_trains_a_gan_on_digits_and_continues_to_the_same_bits(starter: Starter) -> None:
    """On two ranks; tests/libraries/recipes has one, too, and holds each line against the undisturbed run's."""
    home = ROOT / "docs" / "recipes" / "gan"
    words = (
        "--config-dir",
        str(home / "conf"),
        "experiment=gan",
        "train.steps=40",
        "log.every=10",
        "checkpoint.every=10",
    )
    path = {"PYTHONPATH": str(home)}
    undisturbed = starter.train(2, *words, name="undisturbed", environ=path)
    again = killed_after(20, starter, 2, *words, environ=path)
    assert again.sha256 == undisturbed.sha256
    assert again.metrics("train")[-1]["d/found_real"] > 0.5


def test_patterns_that_leave_a_parameter_to_none_or_to_two_are_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"generator\.0\.weight is in none of the task's phases \(d: \^discriminator\)"
    ):
        phase_parameters(Gan(), {"d": "^discriminator"})
    with pytest.raises(ConfigError, match="is in the phases d and g of the task"):
        phase_parameters(Gan(), {**PHASES, "g": "."})
    with pytest.raises(ConfigError, match=r"phases\['d'\] of the task=critic matches the name of no parameter"):
        phase_parameters(Gan(), {"d": "critic"})
    with pytest.raises(ConfigError, match="no regular expression"):
        phase_parameters(Gan(), {"d": "("})


def test_a_phased_step_knows_its_phases(switches: None) -> None:
    _, _, parts = built(run())
    assert isinstance(parts.step, PhasedStep)
    assert warmed_up(parts) == ["loss", "d/loss", "d/grad_norm", "g/loss", "g/grad_norm"]

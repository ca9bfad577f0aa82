"""train.freeze: what is frozen does not move, on any number of ranks, with and without DDP, and over restarts."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from phalanx.compose.compose import compose
from phalanx.config.limits import check
from phalanx.exit.codes import ConfigError
from phalanx.train.freezing.plan import freeze
from tests.ranks import DDP, Results, Starter
from tests.train.small_runs import planted
from tests.zoo.models import Norms, untamed

STEPS = 12
FREEZE = "train.freeze=[{match: '^(first|norm)', until: 4}, {match: last, from: 7, until: 10}]"
RUN = (
    *("train.precision=fp64", "train.clip_norm=0.5", "train.micro_batch=2", "optim=adamw", "optim.weight_decay=0.1"),
    *(f"train.steps={STEPS}", "train.epochs=null", "checkpoint.every=1", "log.every=1", "world.device=cpu", FREEZE),
)


def run(model: str = "Norms") -> tuple[str, ...]:
    return (*untamed(model, planted()), *RUN)


def folder(results: Results, step: int) -> Path:
    return results.folder / "checkpoints" / f"step_{step:08d}"


def weights(results: Results, step: int) -> dict[str, torch.Tensor]:
    return load_file(folder(results, step) / "model.safetensors")


def kept(results: Results, step: int) -> Mapping[int, Any]:
    """What the optimizer keeps, by the parameter's number."""
    found = torch.load(folder(results, step) / "state.pt", weights_only=True)
    return dict(found["update"]["optimizer"]["state"])


def moved(results: Results, one: int, other: int) -> set[str]:
    before, after = weights(results, one), weights(results, other)
    return {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}


def test_what_is_frozen_moves_no_weight_no_statistic_and_no_state_of_the_optimizer(starter: Starter) -> None:
    found = starter.train(1, *run(), name="run")
    assert moved(found, 1, 4) == {"last"}, "nor BatchNorm's statistics, which are in eval mode with it"
    assert moved(found, 4, 7) == {"first", "norm", "last"}
    assert moved(found, 7, 10) == {"first", "norm"}
    assert moved(found, 10, 12) == {"first", "norm", "last"}
    of_last = set(kept(found, 4))
    assert len(kept(found, 5)) == 6, "what joins has a state from its first step on"
    for number, state in kept(found, 7).items():
        stays = all(torch.equal(value, kept(found, 10)[number][name]) for name, value in state.items())
        assert stays is (number in of_last)
    told = [(event["step"], event["frozen"], event["batch_norms_in_eval"]) for event in found.events("freeze")]
    assert told == [(0, 4, ["norm.0"]), (4, 0, []), (7, 2, []), (10, 0, [])]


def test_it_is_the_same_on_any_number_of_ranks_and_with_ddp(starter: Starter) -> None:
    one, parameters = starter.train(1, *run(), name="one"), dict(Norms().named_parameters())
    for ranks, knobs in (
        (2, ()),
        (3, ()),
        (3, (DDP,)),
        (2, ("parallel.bucket_mb=0.0001", "parallel.static_graph=true")),
    ):
        other = starter.train(ranks, *run(), *knobs, name=f"on{ranks}{len(knobs)}")
        for name in parameters:  # buffers are each rank's own
            torch.testing.assert_close(weights(other, STEPS)[name], weights(one, STEPS)[name], rtol=0, atol=1e-9)
        shutil.rmtree(other.folder)


@pytest.mark.parametrize(("ranks", "knobs"), [(1, ()), (2, (DDP,)), (3, ("parallel.find_unused=true",))])
def test_a_restart_before_at_and_after_a_step_at_which_it_changes_has_the_same_bits(
    starter: Starter, ranks: int, knobs: tuple[str, ...]
) -> None:
    whole = starter.train(ranks, *run(), *knobs, name="run")
    undisturbed, lines = whole.sha256, whole.timeless()
    for step in (8, 7, 6, 4):
        (whole.folder / "summary.json").unlink()
        for later in range(step + 1, STEPS + 1):
            shutil.rmtree(folder(whole, later))
        again = starter.train(ranks, *run(), *knobs, name="run")
        assert [event["step"] for event in again.events("resume")][-1] == step
        assert again.sha256 == undisturbed, f"continued from step {step}"
        assert again.timeless() == lines


def test_what_is_frozen_for_ever_is_in_no_optimizer(starter: Starter) -> None:
    found = starter.train(2, *run(), "train.freeze=[{match: first}, {match: norm}]", name="run")
    assert moved(found, 1, STEPS) == {"last"}
    assert len(kept(found, STEPS)) == 2
    assert found.events("freeze") == []


def test_a_rule_that_cannot_hold_is_refused_before_training() -> None:
    model = Norms()
    with pytest.raises(
        ConfigError, match=r"freeze\[1\]\.match=backbone matches .* The names are first\.weight, first\.bias,"
    ):
        freeze(model, [{"match": "first"}, {"match": "backbone"}])
    with pytest.raises(ConfigError, match="holds all 6 parameters at step 3, so nothing would train"):
        freeze(model, [{"match": "first|norm"}, {"match": "last", "from": 3, "until": 4}])
    assert all(parameter.requires_grad for parameter in model.parameters())
    for rule, said in (
        ("{match: '('}", r"freeze\[0\]\.match=\( is no regular expression"),
        ("{until: 3}", r"freeze\[0\]\.match=null is no regular expression"),
        ("{match: a, to: 3}", "has to, and a rule has match, from and until"),
        ("{match: a, from: -1}", "from=-1 is no step"),
        ("{match: a, from: 3, until: 3}", "until=3 is no step after 3"),
    ):
        with pytest.raises(ConfigError, match=said):
            check(compose([f"train.freeze=[{rule}]"]).config, 1)
    with pytest.raises(ConfigError, match="comm_hook=powersgd keeps an error of each bucket"):
        check(compose(["train.freeze=[{match: a, until: 3}]", "parallel.comm_hook=powersgd"]).config, 1)

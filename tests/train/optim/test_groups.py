"""Groups of parameters by their names: own rates, decays, schedules and optimizers, over ranks and restarts."""

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import nn

from phalanx.exit.codes import ConfigError
from phalanx.train.optim.layer_decay import by_names
from tests.compare_runs import distance, same
from tests.ranks import Starter
from tests.train.optim.updaters import drawn, made_optimizers, updater_of
from tests.train.small_runs import planted, undisturbed_and_killed

ADAMW = {"_target_": "torch.optim.AdamW", "lr": 0.1, "weight_decay": 0.5}
COSINE = {"_target_": "phalanx.schedules.Cosine", "warmup_steps": 0, "final": 0.0}
MUON = {"_target_": "torch.optim.Muon", "lr": 0.02, "weight_decay": 0.1}


class Net(nn.Module):
    """An embedding that is tied to the output, and blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(7, 4)
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4)) for _ in range(3))
        self.head = nn.Linear(4, 7, bias=False)
        self.head.weight = self.embed.weight


def told(model: nn.Module, groups: list[dict[str, Any]], **optim: Any) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """The hyperparameters of each parameter, and the notes."""
    made = made_optimizers(model, {**ADAMW, "groups": groups, **optim})
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    found = {
        names[id(parameter)]: {**group, "optimizer": type(each.optimizer).__name__}
        for each in made.optimizers
        for group in each.optimizer.param_groups
        for parameter in group["params"]
    }
    return found, [*made.notes, *made.left]


def test_the_first_group_that_matches_a_name_gives_its_parameter_what_it_says_and_the_rest_is_as_it_was() -> None:
    groups: list[dict[str, Any]] = [
        {"match": r"blocks\.0", "lr": 0.01},
        {"match": "bias$", "weight_decay": 0.0, "betas": [0.5, 0.9]},
        {"match": "^embed"},
    ]
    found, notes = told(Net(), groups)
    assert len(found) == len(list(Net().parameters()))
    assert (found["blocks.0.0.bias"]["lr"], found["blocks.0.0.bias"]["weight_decay"]) == (0.01, 0.5)
    assert (found["blocks.1.0.bias"]["lr"], found["blocks.1.0.bias"]["weight_decay"]) == (0.1, 0.0)
    assert found["blocks.1.0.bias"]["betas"] == (0.5, 0.9)
    assert (found["blocks.1.0.weight"]["lr"], found["blocks.1.0.weight"]["betas"]) == (0.1, (0.9, 0.999))
    assert len(notes) == 1
    assert "optim.groups.0 and optim.groups.1 both match blocks.0.0.bias, blocks.0.1.bias: optim.groups.0" in notes[0]


def test_a_tied_weight_is_matched_by_each_of_its_names_and_is_in_one_group() -> None:
    found, notes = told(Net(), [{"match": "^head", "lr": 0.3}, {"match": "^embed", "lr": 0.2}])
    assert found["embed.weight"]["lr"] == 0.3
    assert "optim.groups.0 and optim.groups.1 both match embed.weight" in notes[0]
    assert "optim.groups.1 (match=^embed) is left with no parameter" in notes[1]


def test_biases_and_norms_have_no_weight_decay_in_groups_either_unless_the_group_says_so() -> None:
    groups = [{"match": r"blocks\.0", "weight_decay": 0.3}, {"match": r"blocks\.1", "decay_1d": True}]
    found, _ = told(Net(), groups, decay_1d=False)
    decays = {name: numbers["weight_decay"] for name, numbers in found.items()}
    assert [decays[f"blocks.{i}.0.weight"] for i in range(3)] == [0.3, 0.5, 0.5]
    assert [decays[f"blocks.{i}.1.weight"] for i in range(3)] == [0.0, 0.5, 0.0]


def test_frozen_parameters_are_in_no_group() -> None:
    model = Net()
    model.blocks[0].requires_grad_(False)
    found, notes = told(model, [{"match": r"blocks\.0", "lr": 0.2}, {"match": r"blocks\.1", "lr": 0.3}])
    assert {name.split(".")[1] for name in found if name.startswith("blocks")} == {"1", "2"}
    assert notes == [r"optim.groups.0 (match=blocks\.0) is left with no parameter that trains"]


@pytest.mark.parametrize(
    ("groups", "says"),
    [
        ([{"match": "block0"}], r"groups.0.match=block0 matches the name of no parameter. .*are embed.weight, blocks"),
        ([{"match": "norm", "ndim": 2}], "matches the name of no parameter with 2 dimensions"),
        ([{"match": "("}], "is no regular expression"),
        ([{"lr": 0.1}], "optim.groups.0 has no match"),
        ([{"match": "bias", "lr": -1}], "optim.groups.0.lr=-1 is no number"),
        ([{"match": "bias", "betas": [1.5, 0.9]}], "optim.groups.0 cannot be built: .* Invalid beta parameter"),
        ([{"match": "bias", "schedule": "cosine"}], "optim.groups.0.schedule=cosine names no class"),
        ([{"match": "bias", "name": "a b"}], "is no name of a metric"),
        ([{"match": "bias", "name": "b"}, {"match": "embed", "name": "b"}], "is the name of another group"),
        ("bias", "optim.groups=bias is no list"),
        ([{"match": "blocks", "optimizer": MUON}], "optim.groups.0.optimizer cannot be built: .*2D parameters"),
    ],
)  # fmt: skip
def test_a_group_that_cannot_be_is_refused_in_words(groups: Any, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        made_optimizers(Net(), {**ADAMW, "groups": groups})


def test_groups_step_as_two_optimizers_by_hand_with_one_clipping_over_all() -> None:
    groups = [{"match": "weight", "ndim": 2, "optimizer": MUON, "schedule": COSINE}]
    ours, by_hand = Net(), Net()
    by_hand.load_state_dict(ours.state_dict())
    made = updater_of(ours, {**ADAMW, "groups": groups})
    matrices = [p for p in by_hand.parameters() if p.ndim == 2]
    muon = torch.optim.Muon(matrices, lr=0.02, weight_decay=0.1)
    adamw = torch.optim.AdamW([p for p in by_hand.parameters() if p.ndim != 2], lr=0.1, weight_decay=0.5)
    for step in range(6):
        made.step(drawn(ours, step))
        for parameter, gradient in zip(by_hand.parameters(), drawn(by_hand, step), strict=True):
            parameter.grad = gradient
        nn.utils.clip_grad_norm_(by_hand.parameters(), 1.0)
        expected = made.updater.rates(step, step)
        assert expected.keys() == {"lr", "lr/weight"}
        muon.param_groups[0]["lr"] = expected["lr/weight"]
        muon.step()  # type: ignore[no-untyped-call]
        adamw.step()
    for name, parameter in ours.named_parameters():
        torch.testing.assert_close(parameter, by_hand.get_parameter(name), rtol=1e-5, atol=1e-6)


LAYERS: Mapping[str, dict[str, int]] = {
    "a vision transformer": {
        "cls_token": 4, "patch_embed.proj.weight": 4, "blocks.0.attn.weight": 3, "blocks.2.mlp.0.weight": 1,
        "blocks.1.mlp.3.weight": 2, "norm.weight": 0, "head.weight": 0,
    },
    "a BERT": {
        "bert.embeddings.word_embeddings.weight": 3, "bert.encoder.layer.0.attention.self.query.weight": 2,
        "bert.encoder.layer.1.output.dense.weight": 1, "bert.pooler.dense.weight": 0, "classifier.weight": 0,
    },
    "a ResNet": {
        "conv1.weight": 4, "bn1.weight": 4, "layer1.0.conv1.weight": 3, "layer1.1.conv2.weight": 2,
        "layer2.0.downsample.0.weight": 1, "layer2.0.conv1.weight": 1, "fc.weight": 0,
    },
    "an encoder and a decoder": {
        "shared.weight": 3, "encoder.block.0.layer.0.k.weight": 2, "encoder.block.1.layer.1.k.weight": 1,
        "encoder.norm.weight": 0, "decoder.block.0.layer.0.k.weight": 2, "decoder.block.1.layer.0.k.weight": 1,
        "lm_head.weight": 0,
    },
    "layers alone": {"layers.0.weight": 2, "layers.2.weight": 1, "layers.4.weight": 0, "layers.4.bias": 0},
    "a head of several layers": {
        "features.0.weight": 3, "features.3.weight": 2, "features.6.weight": 1, "features.6.bias": 1,
        "classifier.1.weight": 0, "classifier.4.weight": 0,
    },
    "stages": {
        "stem.conv.weight": 5, "stages.0.blocks.0.w.weight": 4, "stages.0.blocks.1.w.weight": 3,
        "stages.1.downsample.weight": 2, "stages.1.blocks.0.w.weight": 1, "head.weight": 0,
    },
}  # fmt: skip


@pytest.mark.parametrize("kind", LAYERS)
def test_layers_are_told_by_the_numbered_blocks(kind: str) -> None:
    assert by_names(list(LAYERS[kind])) == LAYERS[kind]


def test_layer_decay_lowers_the_rate_from_layer_to_layer_but_not_where_a_group_has_its_own() -> None:
    found, _ = told(Net(), [{"match": "embed", "lr": 0.3}], layer_decay=0.5)
    rates = {name: numbers["lr"] for name, numbers in found.items()}
    assert rates["embed.weight"] == 0.3
    assert [rates[f"blocks.{i}.0.weight"] for i in range(3)] == pytest.approx([0.025, 0.05, 0.1])
    made = made_optimizers(Net(), {**ADAMW, "layer_decay": 0.5, "decay_1d": False})
    assert [fact["name"] for fact in made.facts][::2] == ["layer_3", "layer_2", "layer_1", "layer_0"]
    assert dict(made.optimizers[0].named_rates(0, 0)) == pytest.approx(
        {f"layer_{3 - i}": 0.1 * 0.5**i for i in range(4)}
    )


@pytest.mark.parametrize(
    ("optim", "says"),
    [
        ({**ADAMW, "layer_decay": 1.5}, "optim.layer_decay=1.5 is no factor"),
        ({"_target_": "tests.zoo.optimizers.RateLess", "size": 0.1, "layer_decay": 0.5}, "has none to begin with"),
    ],
)
def test_a_layer_decay_that_cannot_be_is_refused_in_words(optim: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        made_optimizers(Net(), optim)
    with pytest.raises(ConfigError, match="finds no numbered blocks"):
        made_optimizers(nn.Linear(2, 2), {**ADAMW, "layer_decay": 0.5})


TWO = (
    "optim=adamw",
    "optim.groups=[{match:weight,ndim:2,name:muon,optimizer:{_target_:torch.optim.Muon,lr:0.02}},"
    "{match:bias,lr:0.1,schedule:{_target_:torch.optim.lr_scheduler.OneCycleLR,_partial_:true,interval:step,"
    "max_lr:0.1,total_steps:13}}]",
    "train.clip_norm=1",
    "train.steps=12",
    "checkpoint.every=5",
    "log.every=1",
)


def test_two_optimizers_are_killed_and_go_on_to_the_same_bits(starter: Starter) -> None:
    run = (*planted(spoilt=[17], kill_at=70), *TWO)
    undisturbed, killed = undisturbed_and_killed(starter, 2, *run)
    same(undisturbed, killed)
    (start,) = undisturbed.events("start")
    assert [group["optimizer"] for group in start["groups"]] == ["Muon", "AdamW"]
    assert {"lr", "lr/bias"} <= undisturbed.metrics("train")[0].keys()
    assert undisturbed.summary["skipped"] == 1


def test_groups_are_the_same_training_on_any_number_of_ranks(starter: Starter) -> None:
    run = (*planted(), *TWO, "train.precision=fp64", "train.micro_batch=2")
    one, two, three = (starter.train(ranks, *run, name=f"on{ranks}") for ranks in (1, 2, 3))
    assert distance(two, one) < 1e-12
    assert distance(three, one) < 1e-12


PLATEAU = (
    "data.eval={_target_:tests.train.faulty_parts.Planted,samples:40}",
    "eval.every=2",
    "optim.lr=0.5",
    "train.steps=24",
    "checkpoint.every=3",
    "log.every=1",
)
OURS = "schedule={_target_:phalanx.schedules.Plateau,metric:accuracy,factor:0.5,patience:1}"
TORCHS = (
    "schedule={_target_:torch.optim.lr_scheduler.ReduceLROnPlateau,_partial_:true,"
    "metric:eval/accuracy,factor:0.5,patience:1}"
)


@pytest.mark.parametrize("schedule", [OURS, TORCHS], ids=["ours", "torchs"])
def test_a_rate_that_falls_at_a_plateau_is_the_same_on_all_ranks_and_after_a_kill(
    starter: Starter, schedule: str
) -> None:
    """More than one reduction, one of them before the kill."""
    words = [word for word in planted(kill_at=140) if not word.startswith("schedule")]
    undisturbed, killed = undisturbed_and_killed(starter, 2, *words, "~schedule", f"+{schedule}", *PLATEAU)
    same(undisturbed, killed)
    rates = {line["step"]: line["lr"] for line in undisturbed.metrics("train")}
    assert rates[24] < rates[16] < rates[1] == 0.5

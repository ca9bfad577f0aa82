"""Optimizers, layer-wise decay and groups of timm, schedulefree and torch on the models that people train with them."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from phalanx.train.optim.layer_decay import depths
from phalanx.train.optim.optimizer_average import OptimizerAverage
from tests.compare_runs import distance, same
from tests.ranks import Starter
from tests.train.faulty_parts import Planted
from tests.train.optim.updaters import drawn, equal, made_optimizers, small_model, updater_of
from tests.train.small_runs import planted, undisturbed_and_killed

pytestmark = pytest.mark.zoo

VIT = {"img_size": 2, "patch_size": 1, "embed_dim": 24, "depth": 3, "num_heads": 3, "num_classes": 10}


class Pictures(Planted):
    """Planted's vectors as pictures of three channels and 2 x 2 pixels."""

    def __getitems__(self, indices: Any) -> Any:
        inputs, labels = super().__getitems__(indices)
        return inputs.view(-1, 3, 2, 2), labels

    def __getitem__(self, index: int) -> Any:
        inputs, label = super().__getitem__(index)
        return inputs.view(3, 2, 2), label


def node(**items: object) -> str:
    texts = {name: str(value).lower() if isinstance(value, bool) else value for name, value in items.items()}
    return "{" + ",".join(f"{name}:{text}" for name, text in texts.items()) + "}"


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("vit_tiny_patch16_224", VIT),
        ("convnext_atto", {"depths": (1, 1, 2, 1), "dims": (4, 8, 8, 8)}),
        ("swin_tiny_patch4_window7_224", {"embed_dim": 12, "depths": (1, 1, 2, 1), "num_heads": (1, 1, 2, 2)}),
        ("resnet10t", {"num_classes": 3}),
    ],
)
def test_layers_of_timms_models_have_timms_rates(name: str, options: dict[str, Any]) -> None:
    import timm
    from timm.optim import param_groups_layer_decay

    model = timm.create_model(name, **options)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    theirs = {
        names[id(parameter)]: 0.1 * group["lr_scale"]
        for group in param_groups_layer_decay(model, weight_decay=0.05, layer_decay=0.75)
        for parameter in group["params"]
    }
    optim = {"_target_": "timm.optim.Lamb", "lr": 0.1, "weight_decay": 0.05, "layer_decay": 0.75, "decay_1d": False}
    made = made_optimizers(model, optim)
    ours = {names[id(p)]: group["lr"] for group in made.optimizers[0].optimizer.param_groups for p in group["params"]}
    assert ours == pytest.approx(theirs)


def test_layers_of_a_bert_are_beits() -> None:
    from transformers import BertConfig, BertForSequenceClassification

    sizes = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 8}
    model = BertForSequenceClassification(BertConfig(vocab_size=40, num_hidden_layers=3, **sizes))
    found = depths(model, [name for name, _ in model.named_parameters()])
    for name, depth in found.items():
        parts = name.split(".")
        inside = int(parts[3]) if parts[:3] == ["bert", "encoder", "layer"] else None
        assert depth == (3 - inside if inside is not None else 4 if "embeddings" in parts else 0), name


def test_a_vit_with_layer_decay_by_lamb_is_killed_and_goes_on_to_the_same_bits(starter: Starter) -> None:
    pictures = "tests.libraries.test_optimizers.Pictures"
    words = [word.replace("tests.train.faulty_parts.Planted", pictures) for word in planted(kill_at=70)]
    words = [word for word in words if not word.startswith("model")]
    run = (
        *(*words, "~model", f"+model={node(_target_='timm.create_model', model_name='vit_tiny_patch16_224', **VIT)}"),
        *("~optim", f"+optim={node(_target_='timm.optim.Lamb', lr=0.02, layer_decay=0.75, decay_1d=False)}"),
        *("schedule=cosine", "train.steps=12", "checkpoint.every=5", "log.every=1"),
    )
    undisturbed, killed = undisturbed_and_killed(starter, 2, *run)
    same(undisturbed, killed)
    first = undisturbed.metrics("train")[0]
    assert first["lr/layer_0"] / first["lr"] == pytest.approx(0.75**4)


@pytest.mark.parametrize(
    ("target", "options"),
    [
        ("timm.optim.Lion", {"lr": 0.01}),
        ("timm.optim.Lamb", {"lr": 0.01}),
        ("timm.optim.AdaBelief", {"lr": 0.01}),
        ("timm.optim.AdafactorBigVision", {"lr": 0.01}),
        ("timm.optim.Adan", {"lr": 0.01}),
        ("timm.optim.Lars", {"lr": 0.01}),
        ("timm.optim.NAdamW", {"lr": 0.01}),
        ("timm.optim.LaProp", {"lr": 0.01}),
        ("timm.optim.create_optimizer_v2", {"opt": "lion", "lr": 0.01}),
        ("schedulefree.AdamWScheduleFree", {"lr": 0.01, "warmup_steps": 2}),
        ("schedulefree.SGDScheduleFree", {"lr": 0.1}),
        ("schedulefree.RAdamScheduleFree", {"lr": 0.01}),
        ("transformers.optimization.Adafactor", {"lr": 0.01, "relative_step": False, "scale_parameter": False}),
    ],
)
def test_an_optimizer_of_theirs_steps_as_by_hand_and_goes_on_from_its_state(
    target: str, options: dict[str, Any], tmp_path: Path
) -> None:
    ours, by_hand = small_model(), small_model()
    made = updater_of(ours, {"_target_": target, **options})
    theirs = type(made.optimizer)(by_hand.parameters(), **{n: v for n, v in options.items() if n != "opt"})
    modes = hasattr(theirs, "train")
    if modes:
        theirs.train()  # type: ignore[attr-defined]
    for step in range(4):
        made.step(drawn(ours, step))
        for parameter, gradient in zip(by_hand.parameters(), drawn(by_hand, step), strict=True):
            parameter.grad = gradient
        nn.utils.clip_grad_norm_(by_hand.parameters(), 1.0)
        theirs.step()
        if step == 1:
            torch.save((ours.state_dict(), made.updater.state()), tmp_path / "state")
            weights, state = torch.load(tmp_path / "state", weights_only=True)
            ours = small_model()
            ours.load_state_dict(weights)
            made = updater_of(ours, {"_target_": target, **options})
            made.updater.load(state, step + 1)
    for a, b in zip(ours.parameters(), by_hand.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
    if modes:
        theirs.eval()  # type: ignore[attr-defined]
        with OptimizerAverage([made.optimizer], ours.parameters()).swapped_in():
            for a, b in zip(ours.parameters(), by_hand.parameters(), strict=True):
                torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_a_schedule_free_run_is_evaluated_by_its_average_and_goes_on_to_the_same_bits(starter: Starter) -> None:
    own = node(_target_="schedulefree.AdamWScheduleFree", lr=0.01, warmup_steps=3)
    words = [word for word in planted(kill_at=70) if not word.startswith("schedule")]
    run = (
        *(*words, "data.eval={_target_:tests.train.faulty_parts.Planted,samples:40}", "eval.every=2"),
        *("~optim", f"+optim={own}", "schedule=constant", "train.steps=12", "checkpoint.every=5"),
    )
    undisturbed, killed = undisturbed_and_killed(starter, 2, *run)
    same(undisturbed, killed)
    last = undisturbed.folder / "checkpoints/step_00000012"
    assert not equal(load_file(last / "ema.safetensors"), load_file(last / "model.safetensors"))


GPT = (
    "~model",
    "+model._target_=tests.libraries.char_gpt.GPT",
    "~data.train",
    "+data.train={_target_:tests.libraries.char_gpt.Text,length:12,kill_at:100}",
    "data.eval=null",
    "data.augment=null",
    "~task",
    "+task._target_=tests.libraries.char_gpt.NextCharacter",
    "checkpoint.best_metric=null",
    "optim=adamw",
    "optim.lr=0.003",
    "optim.weight_decay=0.1",
    "optim.groups=[{match:'wte|wpe',weight_decay:0.0},"
    "{match:'^h',ndim:2,name:muon,optimizer:{_target_:torch.optim.Muon,lr:0.02,weight_decay:0.1}}]",
    "schedule=warmup_stable_decay",
    "schedule.warmup_steps=5",
    "train.steps=40",
    "train.global_batch=12",
    "train.clip_norm=1",
    "checkpoint.every=15",
    "eval.every=null",
    "log.every=10",
)


def test_a_gpt_of_characters_trains_by_muon_and_adamw_with_groups_on_one_and_two_ranks(starter: Starter) -> None:
    marker = starter.folder / "killed"
    marker.touch()
    one, two = (starter.train(ranks, *GPT, "train.precision=fp64", name=f"on{ranks}") for ranks in (1, 2))
    assert distance(two, one) < 1e-9
    undisturbed, killed = undisturbed_and_killed(starter, 2, *GPT)
    same(undisturbed, killed)
    lines = undisturbed.metrics("train")
    assert lines[-1]["loss"] < lines[0]["loss"] - 0.5
    (start,) = undisturbed.events("start")
    told = {(group["name"], group["optimizer"], group.get("weight_decay")) for group in start["groups"]}
    expected = {("rest", "AdamW", 0.0), ("wte_wpe", "AdamW", 0.0), ("muon", "Muon", 0.1)}
    assert told == expected, "the last weight matrix but those is tied"

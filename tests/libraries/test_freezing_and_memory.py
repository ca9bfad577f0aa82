"""train.freeze and train.checkpoint_activations with models of timm and transformers, as their users have them."""

import pytest
import torch
from safetensors.torch import load_file

from phalanx.train.checkpoint.weights import read
from tests.compare_runs import same
from tests.ranks import DDP, Results, Starter
from tests.train.small_runs import planted, undisturbed_and_killed

pytestmark = pytest.mark.zoo

RUN = (
    *(word for word in planted(kill_at=8 * 4) if not word.startswith("model")),
    *("train.steps=6", "train.epochs=null", "train.micro_batch=4", "optim=adamw", "checkpoint.every=1", "~model"),
)
RESNET = (*RUN, "+model={_target_: tests.libraries.freezing_parts.Pictured, name: resnet10t, pixels: 32}")
VIT = (*RUN, "+model={_target_: tests.libraries.freezing_parts.Pictured, name: vit_tiny_patch16_224, pixels: 32}")
GPT = (
    *(*RUN, "+model._target_=tests.libraries.freezing_parts.gpt2"),
    *("~task", "+task._target_=tests.libraries.freezing_parts.NextToken"),
)


def moved(results: Results, one: int, other: int) -> set[str]:
    before, after = (
        read(results.folder / f"checkpoints/step_{step:08d}" / "model.safetensors") for step in (one, other)
    )
    return {name.split(".")[1] for name in before if not torch.equal(before[name], after[name])}


@pytest.mark.parametrize(("ranks", "knobs"), [(1, ()), (2, (DDP,))])
def test_the_head_of_a_timm_resnet_trains_first_and_all_of_it_later(
    starter: Starter, ranks: int, knobs: tuple[str, ...]
) -> None:
    words = (*RESNET, *knobs, "train.freeze=[{match: 'body\\.(?!fc)', until: 3}, {match: conv1, from: 3}]")
    undisturbed, killed = undisturbed_and_killed(starter, ranks, *words)
    same(undisturbed, killed)
    assert moved(killed, 1, 3) == {"fc"}
    assert moved(killed, 3, 6) >= {"fc", "layer1", "layer4", "bn1"}
    assert killed.events("freeze")[0]["batch_norms_in_eval"]


@pytest.mark.parametrize("words", [RESNET, VIT, GPT], ids=["resnet", "vit", "gpt"])
def test_blocks_that_are_computed_twice_give_the_same_bits(starter: Starter, words: tuple[str, ...]) -> None:
    (starter.folder / "killed").touch()  # nobody kills itself
    plain = starter.train(2, *words, DDP, "train.steps=3", name="plain")
    found = starter.train(2, *words, DDP, "train.steps=3", "train.checkpoint_activations=all", name="all")
    assert found.sha256 == plain.sha256
    assert found.timeless() == plain.timeless()
    assert load_file(max(found.folder.glob("checkpoints/step_*")) / "model.safetensors")

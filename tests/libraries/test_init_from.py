"""train.init_from takes what timm and transformers save: a new head of another size is one word."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from phalanx.compose.compose import compose
from phalanx.exit.codes import ConfigError
from phalanx.train.start_point.init_from import load_initial, start_point
from phalanx.train.start_point.match_names import Matched
from tests.ranks import Starter, quoted
from tests.train.small_runs import planted

pytestmark = pytest.mark.zoo


def initialised(model: nn.Module, path: Path, *words: str) -> Matched:
    config = compose([f"train.init_from={quoted(str(path))}", *words]).config
    found = load_initial(model, start_point(config), config.train)
    assert found is not None
    return found


def resnet(classes: int) -> nn.Module:
    import timm

    model: nn.Module = timm.create_model("resnet10t", num_classes=classes)
    return model


def bert() -> Any:
    from transformers import BertConfig

    return BertConfig(
        vocab_size=40, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8, num_labels=3
    )


def test_resnet_of_timm_takes_its_saved_weights_under_a_new_head(tmp_path: Path) -> None:
    given = resnet(10)
    torch.save(given.state_dict(), tmp_path / "resnet.pth")
    model = resnet(3)
    with pytest.raises(ConfigError, match=r"Type train\.init_skip=fc\.\* to"):
        initialised(model, tmp_path / "resnet.pth")
    matched = initialised(model, tmp_path / "resnet.pth", "train.init_skip=fc.*")
    assert matched.new == matched.left == ["fc.weight", "fc.bias"]
    ours, theirs = model.state_dict(), given.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in matched.loaded)
    assert len(matched.loaded) == len(ours) - 2


def test_folder_of_save_pretrained_is_taken_whole_sharded_or_by_another_head(tmp_path: Path) -> None:
    from transformers import BertForSequenceClassification, BertModel, GPT2Config, GPT2LMHeadModel

    torch.manual_seed(1)
    body = BertModel(bert())
    body.save_pretrained(tmp_path / "body")
    body.save_pretrained(tmp_path / "shards", max_shard_size="5KB")
    assert (tmp_path / "shards/model.safetensors.index.json").exists()
    for folder in ("body", "shards"):
        model = BertForSequenceClassification(bert())
        with pytest.raises(ConfigError) as refused:
            initialised(model, tmp_path / folder)
        typed = '\'train.init_rename=[["^","bert."]]\' train.init_skip=classifier.*'
        assert typed in str(refused.value)
        matched = initialised(
            model, tmp_path / folder, "train.init_rename=[['^','bert.']]", "train.init_skip=classifier.*"
        )
        assert matched.new == ["classifier.weight", "classifier.bias"]
        ours, theirs = model.bert.state_dict(), body.state_dict()
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    # Its head and its embedding are one tensor, which safetensors hold once.
    config = GPT2Config(vocab_size=40, n_positions=8, n_embd=8, n_layer=1, n_head=2)
    tied = GPT2LMHeadModel(config)
    tied.save_pretrained(tmp_path / "gpt2")
    other = GPT2LMHeadModel(config)
    initialised(other, tmp_path / "gpt2")
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in tied.state_dict().items())


class Pooled(nn.Module):
    """timm's ResNet over planted samples, shape (b, 12), as images of 2 x 2 pixels."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.net = resnet(classes)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        images = nn.functional.interpolate(inputs.view(-1, 3, 2, 2), scale_factor=16)
        logits: torch.Tensor = self.net(images)
        return logits


@pytest.mark.parametrize("ranks", [1, 2])
def test_run_begins_with_a_resnet_of_timm(starter: Starter, ranks: int) -> None:
    given = resnet(7)
    torch.save({"state_dict": given.state_dict(), "epoch": 90}, starter.folder / "resnet.pth.tar")
    run = (
        *(word for word in planted(samples=16) if not word.startswith("model")),
        *("~model", "+model._target_=tests.libraries.test_init_from.Pooled", "+model.classes=10"),
        *("train.epochs=1", "optim=sgd", "optim.lr=0"),
    )
    begins = f"train.init_from={quoted(str(starter.folder / 'resnet.pth.tar'))}"
    rename = """train.init_rename=[["^","net."]]"""
    refused = starter.run(ranks, *run, begins, "run.name=r")
    assert refused.codes == [2] * ranks
    assert f"Type '{rename}' train.init_skip=net.fc.*" in refused.output
    results = starter.train(ranks, *run, begins, rename, "train.init_skip=net.fc.*", name="r")
    found, theirs = results.weights(), given.state_dict()
    trained = [name for name, _ in given.named_parameters() if not name.startswith("fc.")]
    assert all(torch.equal(found[f"net.{name}"], theirs[name]) for name in trained)
    assert results.events("start")[0]["init_names"]["new"] == ["net.fc.weight", "net.fc.bias"]

"""Exports to ONNX Runtime: a ResNet, models of transformers, a recommender and a recurrent network of a user's own."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import phalanx
from phalanx.exit.codes import ConfigError, ParityMissed
from phalanx.train.deploy.runtimes.load_export import load_export
from tests.libraries.deploy import parts
from tests.ranks import Starter
from tests.train.deploy.exporting import exported, job

pytestmark = pytest.mark.zoo

PARTS = "tests.libraries.deploy.parts"
TRUST = ("run.trust=[tests,transformers]",)


def trained(starter: Starter, model: str, data: str, *words: str) -> Path:
    own = (model,) if model.startswith("model=") else ("~model", f"+model._target_={PARTS}.{model}")
    sets = [
        f"+data.{name}={{_target_: {PARTS}.{data}, samples: {n}, seed: {n}}}"
        for name, n in (("train", 64), ("eval", 45))
    ]
    steps = ("train.steps=6", "train.epochs=null", "train.global_batch=16", "eval.batch=16", "optim.lr=0.01")
    shared = ("~data.train", "~data.eval", *sets, "data.augment=null", *steps)
    return starter.train(1, *own, *shared, *words, name="r").folder


def test_a_resnet_is_exported_in_each_number_format_and_a_wrong_exporter_found(
    starter: Starter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As torch's was seen to give a ResNet-18 of 0 % accuracy (pytorch#169178)."""
    import onnx_ir

    run = trained(starter, "model=resnet18", "Pictures", "model.num_classes=4", "task.classes=4")
    report = exported(job(run, "onnx"), TRUST)
    assert report["runtime"].startswith("onnxruntime")
    loaded, model, images = load_export(run / "export" / "onnx"), phalanx.load(run).model(), torch.randn(7, 3, 32, 32)
    (name,) = (info.name for info in loaded.manifest.inputs)
    for size in (1, 7):
        with torch.no_grad():
            expected = model(images[:size]).numpy()
        assert np.allclose(loaded.runtime({name: images[:size].numpy()})["output"], expected, atol=1e-4)
    assert loaded.labels == ["dark", "grey", "light", "white"]
    for dtype in ("fp16", "int8"):
        assert exported(job(run, "onnx", dtype, out=run / dtype), TRUST)["dtype"] == dtype
    before, real = (run / "export" / "onnx" / "export.json").read_text(), torch.onnx.export

    def wrong(*args: Any, **options: Any) -> Any:
        made: Any = real(*args, **options)
        weights = made.model.graph.initializers["model.fc.weight"]
        weights.const_value = onnx_ir.tensor(np.roll(weights.const_value.numpy(), 1, 0), name=weights.name)
        return made

    monkeypatch.setattr(torch.onnx, "export", wrong)
    with pytest.raises(ParityMissed):
        exported(job(run, "onnx"), TRUST)
    with pytest.raises(ParityMissed, match=r"eval/(loss|accuracy)|The outputs"):
        exported(job(run, "onnx", "int8"), TRUST)
    assert (run / "export" / "onnx" / "export.json").read_text() == before


def test_texts_of_any_length_go_through_a_bert(starter: Starter) -> None:
    run = trained(starter, "bert", "Texts", "task.classes=2")
    for to in ("onnx", "torch-export", "hf"):
        assert exported(job(run, to), TRUST)["metrics"]["eval/accuracy"]["exported"] is not None
        loaded = load_export(run / "export" / to, trust=["transformers"] if to == "hf" else [])
        assert [info.shape for info in loaded.manifest.inputs] == [("batch", "length")] * 2
        for samples, length in ((1, 5), (7, 33)):
            tokens = torch.randint(1, 50, (samples, length)).numpy()
            answer = loaded.runtime({"input_ids": tokens, "attention_mask": np.ones_like(tokens)})
            assert answer["logits"].shape == (samples, 2)


def test_a_model_with_a_loss_of_its_own_is_exported_without_the_labels(starter: Starter) -> None:
    words = ("task=model_loss", "task.count=shifted_labels", "checkpoint.best_metric=loss")
    run = trained(starter, "gpt", "Tokens", *words)
    report = exported(job(run, "onnx"), TRUST)
    assert (report["metric_name"], report["metric"], report["metric_exported"]) == ("agreement", 1.0, 1.0)
    assert [info.name for info in load_export(run / "export" / "onnx").manifest.inputs] == [
        "input_ids",
        "attention_mask",
    ]


def test_two_inputs_of_a_recommender_keep_their_names(starter: Starter) -> None:
    """However the task orders them."""
    words = ("~task", f"+task._target_={PARTS}.Rating", "checkpoint.best_metric=loss")
    run = trained(starter, "Factors", "Pairs", *words)
    assert exported(job(run, "onnx"), TRUST)["metric_name"] == "eval/rmse"
    loaded, (users, items) = load_export(run / "export" / "onnx"), torch.randint(0, 30, (2, 7))
    with torch.no_grad():
        expected = phalanx.load(run, trust=["tests"]).model()(users, items).numpy()
    found = loaded.runtime({"users": users.numpy(), "items": items.numpy()})
    assert np.allclose(found["output"], expected, atol=1e-6)
    assert loaded.preprocessing["items"] == {"kind": "index", "size": 40}
    assert loaded.manifest.postprocessing == {"kind": "value", "output": "output"}


def test_a_recurrent_network_is_exported_for_any_length_and_what_decides_by_values_is_told(starter: Starter) -> None:
    run = trained(starter, "Recurrent", "Texts", "task.classes=2")
    exported(job(run, "onnx"), TRUST)
    loaded, model = load_export(run / "export" / "onnx"), parts.Recurrent()
    model.load_state_dict(phalanx.load(run, trust=["tests"]).weights())
    tokens = torch.randint(1, 50, (3, 31))
    with torch.no_grad():
        expected = model(tokens, torch.ones_like(tokens))["logits"].numpy()
    found = loaded.runtime({"input_ids": tokens.numpy(), "attention_mask": np.ones((3, 31), np.int64)})
    assert np.allclose(found["logits"], expected, atol=1e-5)
    with pytest.raises(ConfigError, match=r"recurrent layer, which torch.export unrolls"):
        exported(job(run, "torch-export"), TRUST)


def test_a_model_that_decides_by_values_is_told_what_to_type(starter: Starter) -> None:
    run = trained(starter, "Decides", "Pictures", "task.classes=4")
    with pytest.raises(ConfigError, match=r"decides by the values of a tensor.*type --to safetensors"):
        exported(job(run, "onnx"), TRUST)
    assert not list((run / "export").iterdir())

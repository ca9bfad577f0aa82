"""LoRA by peft: the base model lies on the disk once, and a run is killed and continues to the same bits."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import phalanx
from phalanx.train.checkpoint.weights import read, weights_sha256
from tests.compare_runs import same
from tests.ranks import Starter, quoted
from tests.train.small_runs import planted, undisturbed_and_killed

pytestmark = [pytest.mark.zoo, pytest.mark.filterwarnings("ignore::FutureWarning")]  # of transformers, by peft

RUN = (
    *(word for word in planted(kill_at=8 * 5) if not word.startswith(("model", "checkpoint.keep"))),
    *("~model", "+model._target_=tests.libraries.freezing_parts.bert_with_lora"),
    *("~task", "+task._target_=tests.libraries.freezing_parts.Tokens", "optim=adamw", "optim.lr=0.01"),
    *("train.steps=8", "train.epochs=null", "checkpoint.every=2", "checkpoint.keep=3"),
)


def test_a_run_starts_from_the_adapter_that_peft_has_saved(starter: Starter, tmp_path: Path) -> None:
    first = starter.train(1, *RUN, "train.steps=4", name="first")
    model: Any = phalanx.load(first.folder, trust=["tests"]).model("last")
    model.save_pretrained(tmp_path / "adapter")
    words = (*RUN, "train.steps=1", f"train.init_from={quoted(str(tmp_path / 'adapter'))}", "optim.lr=0")
    ended = starter.run(1, *words, "run.name=second")
    assert ended.codes == [0], ended.output
    assert "weights of an adapter, and the base model stays as it is built" in ended.output
    assert starter.results("second").sha256 == first.sha256, "the base model comes of the same seed"


@pytest.mark.parametrize("ranks", [1, 2])
def test_adapters_train_and_the_base_model_is_stored_once(starter: Starter, ranks: int) -> None:
    undisturbed, killed = undisturbed_and_killed(starter, ranks, *RUN)
    same(undisturbed, killed)
    folders = sorted(killed.folder.glob("checkpoints/step_*[0-9]"))
    assert len(folders) == 3
    assert len({(folder / "frozen.safetensors").stat().st_ino for folder in folders}) == 1
    apart = load_file(folders[-1] / "model.safetensors")
    assert all("lora" in name or "classifier" in name or "position_ids" in name for name in apart)
    sizes = [(folders[-1] / name).stat().st_size for name in ("model.safetensors", "frozen.safetensors")]
    assert sizes[0] < sizes[1] / 2
    assert weights_sha256(read(folders[-1] / "model.safetensors")) == killed.sha256
    model = phalanx.load(killed.folder, trust=["tests"]).model("last")
    for name, tensor in model.state_dict().items():
        assert torch.equal(read(folders[-1] / "model.safetensors")[name], tensor)

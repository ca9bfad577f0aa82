"""Models, data and optimizers of libraries, named in a config as Hydra users name them."""

import re
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf
from torch import nn

import phalanx
from phalanx.compose.compose import compose
from phalanx.exit.codes import ConfigError
from phalanx.train.engine.parts.config_targets import check_targets, targets
from tests.ranks import ROOT, Results, Starter, until

pytestmark = pytest.mark.zoo

TIMM = """# @package _global_
defaults:
  - override /model: null
  - override /data: null
  - override /optim: null

model: {_target_: timm.create_model, model_name: resnet10t, in_chans: 1, num_classes: 10}
optim: {_target_: timm.optim.Lion, lr: 1e-4}
data:
  train:
    _target_: torch.utils.data.Subset
    dataset: {_target_: phalanx.data.Digits, split: train}
    indices: {_target_: builtins.range, _args_: [64]}
train: {epochs: null, steps: 6, global_batch: 16, micro_batch: 8}
eval: {every: null}
checkpoint: {every: 2}
"""
TRANSFORMERS = """# @package _global_
defaults:
  - override /model: null
  - override /data: null
  - override /task: null
  - override /optim: adamw

model:
  _target_: transformers.AutoModelForSequenceClassification.from_config
  config:
    _target_: transformers.BertConfig
    vocab_size: 40
    hidden_size: 16
    num_hidden_layers: 1
    num_attention_heads: 2
    intermediate_size: 8
    num_labels: 3
    dtype: float32
data: {train: {_target_: tests.libraries.target_parts.texts, samples: 48}}
task: {_target_: tests.libraries.target_parts.Classify}
train: {epochs: null, steps: 6, global_batch: 16, micro_batch: 4}
eval: {every: null}
checkpoint: {every: 2}
"""
LIGHTNING_HYDRA_TEMPLATE = """# @package _global_
defaults:
  - override /model: null
  - override /optim: null
  - override /schedule: null

run: {imports: [tests.libraries.target_parts]}
model:
  _target_: tests.libraries.target_parts.LitLike
  net:
    _target_: torch.nn.Sequential
    _args_:
      - {_target_: torch.nn.Linear, in_features: 784, out_features: "${parts.times:4,4}"}
      - {_target_: torch.nn.ReLU, inplace: true}
      - {_target_: torch.nn.Linear, in_features: "${parts.times:4,4}", out_features: 10}
  optimizer: {_target_: torch.optim.Adam, _partial_: true, lr: 0.001, weight_decay: 0.0}
  compile: false
optim: {_target_: torch.optim.AdamW, _partial_: true, lr: 0.01, weight_decay: 0.0}
schedule: {_target_: torch.optim.lr_scheduler.CosineAnnealingLR, _partial_: true, T_max: 6, interval: step}
train: {epochs: null, steps: 6, global_batch: 16, micro_batch: 8}
eval: {every: null}
checkpoint: {every: 2}
"""


@pytest.fixture
def conf(tmp_path: Path) -> str:
    """A config folder of the user's."""
    folder = tmp_path / "conf" / "experiment"
    folder.mkdir(parents=True)
    for name, text in {"timm": TIMM, "bert": TRANSFORMERS, "lit": LIGHTNING_HYDRA_TEMPLATE}.items():
        (folder / f"{name}.yaml").write_text(text)
    return f"--config-dir={folder.parent}"


def killed(starter: Starter, name: str, *words: str) -> Results:
    """A run whose ranks are killed past its first checkpoint, and continued."""
    world = starter.start(2, f"run.name={name}", *words)
    results = starter.results(name)
    until(lambda: (results.folder / "checkpoints" / "step_00000002" / "manifest.json").exists())
    world.kill()
    world.wait()
    return starter.train(2, *words, name=name)


@pytest.mark.parametrize(
    ("experiment", "trust"),
    [
        ("timm", ["timm", "torch.utils.data", "builtins"]),
        ("bert", ["transformers", "tests"]),
        ("lit", ["tests", "torch.nn.modules.container"]),
    ],
)
def test_a_run_of_a_librarys_callables_continues_replays_and_loads(
    starter: Starter, conf: str, experiment: str, trust: list[str]
) -> None:
    words = (conf, f"experiment={experiment}")
    results = starter.train(2, *words, name="undisturbed")
    assert killed(starter, "killed", *words).sha256 == results.sha256
    replay = (f"--config-dir={results.folder}", "--config-name=resolved")
    refused = starter.run(1, *replay, "run.name=replayed")
    assert refused.codes == [2]
    assert f"type run.trust=[{trust[0]}]" in refused.output
    again = starter.train(2, *replay, f"run.trust=[{','.join(trust)}]", name="replayed")
    assert again.sha256 == results.sha256
    with pytest.raises(ConfigError, match=rf"trust=\['{trust[0]}'\]"):
        phalanx.load(results.folder).model()
    assert isinstance(phalanx.load(results.folder, trust=trust).model(), nn.Module)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["experiment=timm", "+model.num_clases=3"], "model.num_clases is not taken: timm.create_model says: ResNet"),
        (
            ["experiment=timm", "model.model_name=resnet10x"],
            "timm.create_model says: RuntimeError: Unknown model (resnet10x)",
        ),
        (["experiment=timm", "optim.betas=3"], "optim.betas"),
        (
            ["experiment=bert", "model._target_=transformers.AutoModelForSequenceClassification"],
            "is no class derived from Module, so it is not called",
        ),
        (
            ["experiment=bert", "model._target_=transformers.AutoModelForSequenceClassification.from_confg"],
            "Did you mean ",
        ),
        (
            ["experiment=bert", "model.config.hidden_size=wide"],
            "model.config.hidden_size=wide does not fit: BertConfig takes int",
        ),
        (
            ["experiment=bert", "model.config.hidden_size=15"],
            "The hidden size (15) is not a multiple of the number of attention",
        ),
        (["experiment=bert", "model.config._target_=transformers.AutoTokenizer"], "model.config"),
    ],
)
def test_a_mistake_is_told_in_the_words_of_the_config(starter: Starter, conf: str, words: list[str], says: str) -> None:
    ended = starter.run(1, conf, *words)
    assert ended.codes == [2], ended.output
    assert says in ended.output
    assert "Traceback" not in ended.output


@pytest.mark.parametrize(
    "model",
    [
        "{_target_: torchvision.models.resnet18, weights: IMAGENET1K_V1}",
        "{_target_: torchvision.models.resnet18, weights: ResNet18_Weights.DEFAULT}",
        "{_target_: torchvision.models.get_model, name: resnet18, weights: IMAGENET1K_V1}",
        "{_target_: timm.create_model, model_name: resnet10t, pretrained: true}",
    ],
)
def test_weights_that_cannot_be_fetched_are_one_message(starter: Starter, conf: str, model: str) -> None:
    """The enum's member is found by its name, and asks for a file of torchvision's."""
    own = re.sub("^model: .*$", f"model: {model}", TIMM, flags=re.MULTILINE)
    Path(conf.partition("=")[2], "experiment", "own.yaml").write_text(own)
    nowhere = {f"{scheme}_PROXY": "http://127.0.0.1:9" for scheme in ("HTTP", "HTTPS", "http", "https", "ALL")}
    home = {name: str(starter.folder / "home") for name in ("TORCH_HOME", "HF_HOME")}
    ended = starter.run(1, conf, "experiment=own", environ={**nowhere, **home})
    assert ended.codes == [2], ended.output
    assert "could not fetch what it needs" in ended.output
    assert "Traceback" not in ended.output


def test_a_login_node_checks_the_names_and_imports_no_library(conf: str) -> None:
    look = (
        "import sys; sys.modules['torch'] = None; from phalanx.compose.compose import compose; "
        "from phalanx.targets.check_targets import check_targets; found = compose(sys.argv[1:]); "
        "check_targets([found.plain]); print(found.config.run.name, {'timm', 'transformers'} & sys.modules.keys())"
    )
    command = [sys.executable, "-c", look, conf, "experiment=bert"]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert said.startswith("bert-")
    assert said.endswith(" set()\n")


def test_a_model_of_torchvision_is_built_by_its_name() -> None:
    node = {"_target_": "torchvision.models.get_model", "name": "resnet18", "num_classes": 3, "weights": None}
    builder = targets(compose([]).config, foreign=False)
    builder.check(node, "model", nn.Module)
    assert builder.build(node, "model", nn.Module).get_parameter("fc.weight").shape == (3, 512)


OWN = """
from torch import nn
class Net(nn.Linear):
    def __init__(self, width: int) -> None:
        super().__init__(width, width)
"""


def test_what_the_page_shows_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mypkg").mkdir()
    (tmp_path / "mypkg" / "nets.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(tmp_path))
    page = (ROOT / "docs" / "targets.md").read_text()
    shown = re.findall(r"^    (?:model|data|optim|schedule): ?.*\n(?:      .*\n)*", page, re.MULTILINE)
    assert len(shown) == 10
    for block in shown:
        config = compose([]).config
        found: Any = OmegaConf.to_container(OmegaConf.create(textwrap.dedent(block)))
        changed = replace(config, **{**found, "data": replace(config.data, **found.get("data", {}))})
        check_targets(changed, targets(changed, foreign=False))

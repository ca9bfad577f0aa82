"""A config that came with a stranger's run folder runs no code of theirs, looks nothing up and tells nobody anything."""

import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from omegaconf import OmegaConf
from torch import nn
from torch.utils.data import Dataset

import phalanx.models
from phalanx.compose.compose import Composed, compose, print_answer
from phalanx.compose.digest import digest
from phalanx.compose.resolved import read
from phalanx.config.limits import check
from phalanx.config.moved_names import MOVED
from phalanx.config.schema import Config, as_plain, schema
from phalanx.exit.codes import ConfigError
from phalanx.targets.instantiate import Targets
from phalanx.targets.trust import Trust
from phalanx.train.data import mnist
from phalanx.train.engine.parts.config_targets import KINDS, check_targets, targets

EVIL = """
import os
from torch import nn, load
os.makedirs(os.environ["EVIL"])

class Net(nn.Linear):
    pass

class Thing:
    def __init__(self, inputs, classes):
        pass

def net(inputs, classes):
    return nn.Linear(inputs, classes)
"""
LINEAR: dict[str, object] = {"inputs": 4, "classes": 2}
STRICT = Targets(KINDS, Trust([]))


@pytest.fixture
def evil(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A file that exists once code of the package `evil`, which can be imported, has run."""
    (tmp_path / "evil").mkdir()
    (tmp_path / "evil" / "__init__.py").write_text(EVIL)
    (tmp_path / "evil" / "model").mkdir()
    (tmp_path / "evil" / "model" / "own.yaml").write_text("_target_: evil.Net")
    monkeypatch.setenv("EVIL", str(tmp_path / "ran"))
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path / "ran"
    sys.modules.pop("evil", None)


def stored(folder: Path, **sections: object) -> list[str]:
    """The words that replay a config whose sections a stranger has changed."""
    folder.mkdir(exist_ok=True)
    plain = {**as_plain(compose([]).config), **sections}
    (folder / "resolved.yaml").write_text(yaml.safe_dump(plain))
    return [f"--config-dir={folder}", "--config-name=resolved"]


def with_names_of_then(config: Config) -> dict[str, Any]:
    """The config as it was stored when our classes were train.models.convnet.ConvNet and the like."""
    text = yaml.safe_dump(as_plain(config)).replace("  _target_: phalanx.parallel.DDPStrategy\n", "")
    for then, now in MOVED.items():
        text = text.replace(f"_target_: {now}\n", f"_target_: {then}\n")
    assert "phalanx" not in text
    found: dict[str, Any] = yaml.safe_load(text)
    return found


def checked(words: list[str]) -> Composed:
    """As each rank does before it joins the others."""
    composed = compose(words)
    check_targets(composed.config, targets(composed.config, composed.foreign))
    return composed


DOORS: dict[str, dict[str, object]] = {
    "torch.load": {"f": "state.pt", "weights_only": False},
    "torch.hub.load": {"repo_or_dir": ".", "model": "net", "source": "local"},
    "torch.utils.collect_env.run": {"command": "touch ran"},
    "torch.jit.load": {"f": "state.pt"},
    "torch.package.PackageImporter": {"file_or_buffer": "package.pt"},
    "torch.fx.GraphModule": {"root": {}, "graph": {}},
    "torch.utils.data.Subset": {"dataset": [], "indices": []},
    "torch.nn.functional.linear": {"input": [], "weight": []},
    "torch.nn.utils.stateless.functional_call": {},
    "torch.nn.init.zeros_": {"tensor": []},
    "torchvision.models.list_models": {},
    "torchvision.models.get_model": {"name": "resnet18"},
    "torchvision.models._api.get_model": {"name": "resnet18"},
    "torchvision.models.resnet._resnet": {"block": "x", "layers": [], "weights": None, "progress": False},
    "torchvision.datasets.DatasetFolder": {"root": ".", "loader": "x"},
    "phalanx.train.main.main": {},
    "phalanx.train.loading.workers.workers._SingleAnswer": {"act": "x", "argument": "x"},
    "phalanx.launch.sweep.fork_server.serve": {},
    "phalanx.run": {},
    "phalanx.load": {"run": "x"},
    "phalanx.Task": {},
    "phalanx.launch.cli.main": {},
    "phalanx.__main__.main": {},
    "phalanx.models.handed_on": {"package": "os", "module": "os", "names": {}},
    "phalanx.models.__getattr__": {"name": "ConvNet"},
    "phalanx.models.__builtins__": {},
    "phalanx.data.TYPE_CHECKING": {},
    "phalanx.common.lazy.handed_on": {},
    "phalanx.schedules.__loader__": {},
    "os.system": {"command": "touch ran"},
    "builtins.eval": {"source": "1"},
    "evil.Net": LINEAR,
}


@pytest.mark.parametrize("door", DOORS)
def test_stored_config_builds_nothing_but_what_is_on_the_list(door: str, evil: Path) -> None:
    """Named outright, or as an argument of what is on the list."""
    node = {"_target_": door, **DOORS[door]}
    for where, model in (
        ("model", node),
        ("model.inner.0", {"_target_": "torch.nn.Sequential", "inner": [node]}),
        ("model.modules.a.0", {"_target_": "torch.nn.ModuleDict", "modules": {"a": [node]}}),
        ("model.inner.0", {"_target_": "torch.nn.Sequential", "inner": (node,)}),  # as a group's betas are
    ):
        with pytest.raises(ConfigError, match=r"type run\.trust=\[") as refused:
            STRICT.check(model, "model", nn.Module)
        assert f"{where}._target_={door}" in str(refused.value)
    assert not evil.exists()


def test_a_module_of_public_names_hands_on_nothing_that_is_not_on_the_list(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it gives out is judged by the module that defines it."""
    for name in ("load", "save"):
        monkeypatch.setattr(phalanx.models, name, getattr(torch, name), raising=False)
        with pytest.raises(ConfigError, match=r"type run\.trust=\[torch\.serialization\]"):
            STRICT.check({"_target_": f"phalanx.models.{name}", "f": "x"}, "model", nn.Module)


@pytest.mark.parametrize("named", [as_plain, with_names_of_then], ids=["now", "before"])
def test_what_comes_with_phalanx_is_built_from_a_stored_config(
    tmp_path: Path, named: Callable[[Config], dict[str, Any]]
) -> None:
    """By its public names, and by those that it had before there were any."""
    config = compose([]).config
    plain = named(config)
    found = checked(
        stored(tmp_path / "theirs", **{name: plain[name] for name in ("model", "data", "task", "schedule")})
    )
    assert digest(found.config) == digest(config)
    assert found.config.model["_target_"] == "phalanx.models.ConvNet"


@pytest.mark.filterwarnings("ignore:.*deprecated:FutureWarning")
def test_pipe_that_unpickles_the_files_of_a_folder_is_not_built(tmp_path: Path) -> None:
    """Sets of torch.utils.data open the files that they find and decode them by their endings."""
    mark = tmp_path / "ran"
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "a.pickle").write_text(f"cos\nmkdir\n(V{mark}\ntR.")  # a pickle that calls os.mkdir(mark)
    pipes = "torch.utils.data.datapipes.iter"
    node: dict[str, Any] = {"_target_": f"{pipes}.FileLister", "root": str(tmp_path / "theirs"), "masks": "*.pickle"}
    node = {"_target_": f"{pipes}.FileOpener", "datapipe": node, "mode": "b"}
    node = {"_target_": f"{pipes}.RoutedDecoder", "datapipe": node}
    node = {"_target_": "torch.utils.data.ConcatDataset", "datasets": node}
    with pytest.raises(ConfigError, match=r"type run\.trust="):
        STRICT.build(node, "data.train", Dataset)
    assert not mark.exists()


@pytest.mark.parametrize(
    "model",
    [
        {"_target_": "torchvision.models.resnet18", "weights": "IMAGENET1K_V1"},
        {"_target_": "torchvision.models.resnet18", "pretrained": True},
        {"_target_": "torchvision.models.segmentation.fcn_resnet50", "weights": None},  # it fetches its backbone's
        {"_target_": "torchvision.models.detection.ssd300_vgg16", "weights": None, "weights_backbone": "DEFAULT"},
    ],
)
def test_stored_config_fetches_no_weights(model: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=r"would have weights fetched.*run\.trust=\[torchvision\.models"):
        STRICT.check(model, "model", nn.Module)


def test_stored_config_fetches_no_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As one's own config may, and a stranger's where its module is trusted."""
    fetched: list[Path] = []
    monkeypatch.setattr(mnist, "_fetch", fetched.append)
    monkeypatch.setattr(mnist, "_PACKAGE", replace(mnist._PACKAGE, ways=()))  # no registry can be reached
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    node = {"_target_": "phalanx.train.data.mnist.MNIST", "root": str(tmp_path), "split": "train", "download": True}
    with pytest.raises(ConfigError, match=r"lacks train-images.*type run\.trust=\[phalanx\.train\.data\.mnist\]"):
        STRICT.build(node, "data.train", Dataset)
    assert not fetched
    for trust in (None, Trust(["phalanx.train.data.mnist"])):
        with pytest.raises(ConfigError):
            Targets(KINDS, trust).build(node, "data.train", Dataset)
        assert fetched.pop()


@pytest.mark.usefixtures("evil")
def test_trusted_package_may_name_any_callable_and_what_it_returns_is_checked(tmp_path: Path) -> None:
    trusting = Targets(KINDS, Trust(["evil"]))
    for name, arguments in (("net", LINEAR), ("Net", {"in_features": 4, "out_features": 2})):
        node = {"_target_": f"evil.{name}", **arguments}
        trusting.check(node, "model", nn.Module)
        assert isinstance(trusting.build(node, "model", nn.Module), nn.Linear)
    node = {"_target_": "evil.Thing", **LINEAR}
    checked([*stored(tmp_path / "theirs", model=node), "run.trust=[evil]"])
    with pytest.raises(ConfigError, match=r"evil\.Thing returned a Thing, no Module"):
        trusting.build(node, "model", nn.Module)
    with pytest.raises(ConfigError, match=r"type run\.trust=\[evil,torch\.serialization\]"):  # it lies elsewhere
        trusting.check({"_target_": "evil.load", "f": "x"}, "model", nn.Module)


def test_trust_does_not_come_with_the_folder(tmp_path: Path, evil: Path) -> None:
    run = {**as_plain(compose([]).config)["run"], "trust": ["evil", "torch"], "accept": "changed", "fresh": True}
    words = stored(tmp_path / "theirs", run=run, model={"_target_": "evil.Net", **LINEAR})
    with pytest.raises(ConfigError, match=r"type run\.trust=\[evil\]"):
        checked(words)
    assert not evil.exists()


def test_stored_config_looks_nothing_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, evil: Path) -> None:
    """Neither in a value, nor in the list of what else it takes, nor in what lies beside it; shown or replayed or read."""
    asked: list[str] = []
    OmegaConf.register_new_resolver("tell", asked.append, replace=True)
    monkeypatch.setenv("SECRET", "hunter22")
    theirs = tmp_path / "theirs"
    run = as_plain(compose([]).config)["run"]
    words = stored(theirs, run={**run, "name": "${tell:a}${oc.env:SECRET}"})
    for act in (
        checked,
        lambda words: print_answer([*words, "--cfg", "job", "--resolve"]),
        lambda _: read(theirs / "resolved.yaml"),
    ):
        with pytest.raises(ConfigError) as refused:
            act(words)
        assert "hunter22" not in str(refused.value)
    text = (theirs / "resolved.yaml").read_text()
    (theirs / "optim").mkdir()
    (theirs / "optim" / "theirs.yaml").write_text("defaults: ['/schedule@x: ${tell:b}']")
    for more in ("defaults: ['model: ${tell:c}', _self_]", "defaults: ['optim: theirs', _self_]", "${tell:d}: 1"):
        (theirs / "resolved.yaml").write_text(f"{text}\n{more}\n")
        with pytest.raises(ConfigError):
            checked(words)
    (theirs / "resolved.yaml").write_text(f"{text}\nhydra: {{searchpath: ['pkg://evil']}}\n")
    with pytest.raises(ConfigError, match=r"hydra\.searchpath"):
        checked(words)
    assert not asked
    assert not evil.exists()
    OmegaConf.clear_resolver("tell")
    assert OmegaConf.has_resolver("oc.env"), "one's own config looks up as before"


def test_every_section_of_the_config_is_one_that_a_stranger_may_set_or_that_is_reset() -> None:
    """A tracker that comes later belongs to what compose/stored_config.py resets."""
    reset = {"run", "wandb", "mlflow", "trackio", "sinks"}
    theirs = {*("seed", "model", "data", "task", "optim", "schedule", "train", "eval", "checkpoint", "log", "parallel")}
    theirs |= {"world", "stop", "cluster", "sweep", "tensorboard", "early_stop"}
    assert {key.partition(".")[0] for key in schema()} == reset | theirs


def test_stored_config_reaches_no_tracker(tmp_path: Path) -> None:
    theirs = {"mode": "online", "project": "p", "entity": "mallory", "group": "g", "tags": ["t"], "finish_timeout_s": 1}
    usual = compose([]).config.wandb
    assert checked(stored(tmp_path / "theirs", wandb=theirs)).config.wandb == usual
    typed = checked([*stored(tmp_path / "theirs", wandb=theirs), "wandb.group=mine"]).config.wandb
    assert (typed.group, typed.entity, typed.tags) == ("mine", usual.entity, usual.tags)
    assert (
        checked(stored(tmp_path / "theirs", wandb={**theirs, "mode": "disabled"})).config.wandb.mode.name == "disabled"
    )


def test_stored_config_sends_nothing_to_a_server_or_a_sink_of_its_own(tmp_path: Path, evil: Path) -> None:
    """What is typed beside it is not completed by what it says."""
    theirs: dict[str, Any] = {
        "mlflow": {"enabled": True, "uri": "http://mallory.example", "experiment": "e"},
        "trackio": {"enabled": True, "project": "p"},
        "sinks": {"theirs": {"_target_": "evil.Net", **LINEAR}},
    }
    folder, usual = tmp_path / "theirs", compose([]).config
    found = checked(stored(folder, **theirs)).config
    assert (found.mlflow, found.trackio, found.sinks) == (usual.mlflow, usual.trackio, {})
    typed = ["mlflow.enabled=true", "trackio.project=mine"]
    found = checked([*stored(folder, **theirs), *typed]).config
    assert (found.mlflow.enabled, found.mlflow.uri, found.mlflow.experiment) == (True, None, None)
    assert (found.trackio.enabled, found.trackio.project) == (False, "mine")
    for word in ("sinks.theirs.inputs=8", "++sinks.theirs={inputs:8}", "++sinks={theirs:{inputs:8}}"):
        config = compose([*stored(folder, **theirs), word]).config
        with pytest.raises(ConfigError, match=r"sinks\.theirs=\{inputs: 8\} names no class"):
            check(config, 1)
    with pytest.raises(ConfigError, match=r"type run\.trust=\[evil\]"):
        checked([*stored(folder, **theirs), "+sinks.mine._target_=evil.Net"])
    assert not evil.exists()


def test_run_is_where_its_folder_lies(tmp_path: Path) -> None:
    """Moved or copied, and never where a stranger's config says."""
    theirs = tmp_path / "moved"
    run = {**as_plain(compose([]).config)["run"], "root": str(tmp_path / "victim"), "name": "there"}
    words = stored(theirs, run=run)
    assert compose(words).config.run.root == "runs"
    (theirs / "environment.json").write_text("{}")
    found = compose(words).config.run
    assert (found.root, found.name) == (str(tmp_path), "moved")
    found = compose([*words, "run.name=new"]).config.run
    assert (found.root, found.name) == ("runs", "new")
    found = compose([*words, "run.root=mine"]).config.run
    assert (found.root, found.name) == ("mine", "moved")


@pytest.mark.parametrize("text", ["${oc.env:HOME}", "${now:%Y}", "${no.such}"])
def test_what_a_stored_config_would_look_up_is_told_by_its_key_and_can_be_typed(tmp_path: Path, text: str) -> None:
    words = stored(tmp_path, task={"_target_": "phalanx.tasks.Classification", "classes": text, "label_smoothing": 0.0})
    with pytest.raises(ConfigError, match=r"task\.classes.*Type task\.classes=… with its value"):
        compose(words)
    assert compose([*words, "task.classes=7"]).config.task["classes"] == 7

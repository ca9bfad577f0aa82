"""What a command line may say: help, completion, one's own configs and classes, and names of any kind."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from phalanx.compose import resolved
from phalanx.compose.compose import compose
from phalanx.compose.hydra_api import CONF
from phalanx.config.overrides import quoted
from phalanx.exit.codes import ConfigError
from tests.ranks import ROOT, Starter

SMALL = ("model=mlp", "model.hidden=[8]", "train.steps=2", "eval.every=null")
MAIN = str(ROOT / "train" / "main.py")
MODELS = sorted(file.stem for file in (ROOT / "conf/model").iterdir())

MINE = """
import torch
from torch.utils.data import Dataset
from phalanx.train.tasks.task import Ratio, Task

class Line(torch.nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = torch.nn.Linear(width, 1)

    def forward(self, points):
        return self.weight(points).squeeze(1)

class Sums(Dataset):
    def __init__(self, samples: int, width: int) -> None:
        self.points = torch.randn(samples, width, generator=torch.Generator().manual_seed(0))

    def __len__(self):
        return len(self.points)

    def __getitem__(self, index):
        return self.points[index], self.points[index].sum()

class Regression(Task):
    def ratios(self, model, batch):
        points, sums = batch
        return {"loss": Ratio(((model(points) - sums) ** 2).sum(), len(sums))}
"""
EXPERIMENT = """
# @package _global_
defaults:
  - override /model: line
  - override /data: sums
  - override /task: regression
train: {steps: 3, global_batch: 8}
"""
SUMS = """
train: {_target_: mine.Sums, samples: 40, width: 4}
eval: {_target_: mine.Sums, samples: 9, width: 4}
augment: null
workers: 0
prefetch: 1
"""


def run_main(
    *words: str, cwd: Path, start: tuple[str, ...] = (MAIN,), environ: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    command, env = [sys.executable, *start, *words], {**os.environ, **(environ or {})}
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """A user's own package and config folder, beside no fork of this one."""
    (tmp_path / "mine.py").write_text(MINE)
    for name, text in {
        "model/line": "_target_: mine.Line\nwidth: 4\n",
        "data/sums": SUMS,
        "task/regression": "_target_: mine.Regression\n",
        "experiment/sums": EXPERIMENT,
    }.items():
        file = tmp_path / "myconf" / f"{name}.yaml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return tmp_path


@pytest.mark.parametrize("ranks", [1, 2])
def test_help_is_printed_once_and_shows_groups_and_config(starter: Starter, tmp_path: Path, ranks: int) -> None:
    ended = starter.run(ranks, "--help", "train.epochs=3")
    assert ended.codes == [0] * ranks
    assert ended.outputs[1:] == [""] * (ranks - 1)
    assert re.search("model: alexnet, .*mlp", ended.output)
    assert "epochs: 3" in ended.output
    assert not list(tmp_path.glob("runs"))


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (("--cfg", "job"), "train:\n  steps: null\n"),
        (("--cfg", "job", "experiment=mnist"), "root: ${data.train.root}"),
        (("--cfg", "job", "experiment=mnist", "--resolve"), "root: data/mnist"),
        (("--cfg", "job", "--package", "optim"), "# @package optim\n_target_: torch.optim.Adam"),
        (("--cfg", "job", "schedule={_target_: my.Steps, size: 3}"), "schedule:\n  _target_: my.Steps\n  size: 3\n"),
        (("--cfg", "job", "sinks.mine._target_=my.Sink"), "sinks:\n  mine:\n    _target_: my.Sink\n"),
        (("--info", "searchpath"), "conf"),
        (("--hydra-help",), "Hydra"),
    ],
    ids=lambda part: " ".join(part) if isinstance(part, tuple) else None,
)
def test_what_hydra_can_show_it_still_shows(starter: Starter, words: tuple[str, ...], shown: str) -> None:
    ended = starter.run(1, *words)
    assert ended.codes == [0], ended.output
    assert shown in ended.output


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("model=", " ".join(f"model={name}" for name in MODELS)),
        ("train.st", "train.steps="),
        ("parallel.comm", "parallel.comm_hook="),
    ],
)
def test_tab_completes_groups_and_keys(starter: Starter, line: str, offered: str) -> None:
    typed = f"python train/main.py {line}"
    environ = {"COMP_LINE": typed, "COMP_POINT": str(len(typed))}
    ended = starter.run(1, "-sc", "query=bash", environ=environ)
    assert ended.codes == [0], ended.output
    assert offered in ended.output


@pytest.mark.parametrize(
    "name",
    ['a b=c "d" ü', "it's", "1e3", "007", "true", "null-ish", "$(touch called)", "${HOME}", "a,b", "[x]", "C:\\x\\"],
)
def test_a_name_that_is_quoted_names_exactly_that_folder(starter: Starter, name: str) -> None:
    for word in ("start at step 0", "finished already"):
        ended = starter.run(1, *SMALL, f"run.name={quoted(name)}")
        assert ended.codes == [0], ended.output
        assert word in ended.output
    (folder,) = (starter.folder / "runs").iterdir()
    assert folder.name == name
    assert resolved.read(folder / "resolved.yaml").run.name == name
    assert not (starter.folder / "called").exists()


@pytest.mark.parametrize("name", ["1e3", "1_000", "true", "007", "2026.10"])
def test_a_number_typed_as_a_name_is_kept_as_typed(starter: Starter, name: str) -> None:
    assert starter.run(1, *SMALL, f"run.name={name}").codes == [0]
    assert [folder.name for folder in (starter.folder / "runs").iterdir()] == [name]


def test_ones_own_model_data_and_task_need_no_fork(starter: Starter, mine: Path) -> None:
    ended = starter.run(1, "--config-dir=myconf", "experiment=sums", environ={"PYTHONPATH": "."})
    assert ended.codes == [0], ended.output
    assert "sums-" in ended.output
    assert "finished  steps 3" in ended.output


def test_hydras_search_path_finds_ones_own_configs(starter: Starter, mine: Path) -> None:
    ended = starter.run(1, "hydra.searchpath=[file://myconf]", "experiment=sums", environ={"PYTHONPATH": "."})
    assert ended.codes == [0], ended.output
    assert "finished  steps 3" in ended.output


def test_flags_and_overrides_may_come_in_any_order(starter: Starter, mine: Path) -> None:
    words = ("train.steps=1", "--config-dir=myconf", "experiment=sums", "--cfg", "job", "seed=7")
    ended = starter.run(1, *words, environ={"PYTHONPATH": "."})
    assert ended.codes == [0], ended.output
    assert "seed: 7" in ended.output


@pytest.mark.parametrize("start", [(MAIN,), ("-m", "phalanx.train.main")], ids=" ".join)
def test_it_starts_as_script_and_as_module_from_anywhere(tmp_path: Path, start: tuple[str, ...]) -> None:
    cwd = ROOT if start[0] == "-m" else tmp_path
    ended = run_main("train.step=5", cwd=cwd, start=start)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith("error: train.step is not a key")


def test_a_typo_is_told_without_importing_torch(tmp_path: Path) -> None:
    ended = run_main("train.step=5", cwd=tmp_path, start=("-X", "importtime", MAIN))
    assert ended.returncode == 2
    imported = {line.rpartition("|")[2].strip() for line in ended.stderr.splitlines()}
    assert "hydra" in imported
    assert not imported & {"torch", "torchvision", "numpy", "wandb", "rich"}


def test_a_secret_in_a_message_is_redacted(tmp_path: Path) -> None:
    ended = run_main("wandb.tags=correct-horse-battery", cwd=tmp_path, environ={"MY_API_KEY": "correct-horse-battery"})
    assert ended.returncode == 2
    assert "wandb.tags=[redacted] does not fit" in ended.stderr


@pytest.mark.parametrize("environ", [{"RANK": "0"}, {"LOCAL_RANK": "0"}, {"RANK": "0", "WORLD_SIZE": "2"}], ids=str)
def test_half_an_environment_of_torchrun_makes_no_world_of_one(tmp_path: Path, environ: dict[str, str]) -> None:
    ended = run_main(cwd=tmp_path, environ=environ)
    assert ended.returncode == 2
    assert ended.stderr.startswith("error: The environment names a rank but lacks ")
    assert "MASTER_ADDR" in ended.stderr
    assert "torchrun --nproc_per_node=N" in ended.stderr
    assert ended.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("train.steps=3", "optim.lr=1e-4", "data.workers=2"),
        ("model=mlp", "+model.more={a: 1}", "~task.label_smoothing", "optim=sgd", "schedule=cosine", "run.name=a b"),
        ("experiment=mnist", "run.root=${oc.env:NOT_SET,elsewhere}", "+log.shown=3", "no.such=1"),
        ("optim={_target_: torch.optim.SGD, lr: 0.1}", "optim.momentum=0.5", "cluster=slurm"),
    ],
)
def test_what_is_kept_of_files_composes_as_hydra_does_from_all_of_them(words: tuple[str, ...]) -> None:
    kept = composed_or_said(words)
    composed_or_said(("train.epochs=7", "model.dropout=0.5", *words))
    assert composed_or_said(words) == kept
    assert composed_or_said((*words, "hydra.searchpath=[]")) == kept  # for which Hydra reads all files anew


def composed_or_said(words: tuple[str, ...]) -> object:
    try:
        return compose(words).plain
    except ConfigError as error:
        return str(error)


def test_an_edit_of_conf_is_read_by_the_next_composition(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(CONF, tmp_path / "conf")
    monkeypatch.setattr("phalanx.compose.hydra_api.CONF", tmp_path / "conf")
    before = compose(["model=mlp"]).plain["model"]
    file = tmp_path / "conf/model/mlp.yaml"
    file.write_text(file.read_text() + "later: 1\n")
    after = compose(["model=mlp"]).plain["model"]
    assert {**before, "later": 1} == after

"""What the same command finds in its folder: nothing saved yet, all done, data that draw by themselves or moved, damage."""

import json
import re
from pathlib import Path

import pytest
import yaml

from tests.ranks import Ended, Results, Starter

EXPERIMENT = """
# @package _global_
defaults:
  - override /model: null
  - override /data: null
  - override /task: null
  - override /optim: sgd
model: {_target_: mine.Net}
data: {train: {_target_: mine.Data, root: data/numbers.txt}, eval: null, augment: null, workers: 0, prefetch: 1}
task: {_target_: mine.Fit}
optim: {lr: 0.01}
train: {epochs: null, steps: 4, global_batch: 4}
checkpoint: {every: 2, best_metric: null}
log: {every: 1}
"""
MINE = """
import numpy, os, torch
from torch import nn
from torch.utils.data import Dataset
from phalanx.exit.codes import ConfigError
from phalanx.train.tasks.task import Ratio, Task

class Data(Dataset):
    def __init__(self, root):
        self.numbers = torch.tensor([float(line) for line in open(root)])

    def __len__(self):
        return len(self.numbers)

    def __getitem__(self, index):
        return self.numbers[index].reshape(1)

class Drawn(Data):
    def __init__(self, root):
        super().__init__(root)
        self.generator = numpy.random.default_rng()

    def __getitem__(self, index):
        return super().__getitem__(index) + self.generator.random()

class Net(nn.Linear):
    def __init__(self):
        super().__init__(1, 1)
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        if self.calls > FAILS_AFTER:
            raise RuntimeError("a mistake")
        return super().forward(x)

class Fit(Task):
    def ratios(self, model, batch):
        return {"loss": Ratio(model(batch).square().sum(), len(batch))}
"""
NEVER = 10**6


@pytest.fixture
def mine(starter: Starter) -> Path:
    """A user's own module; it works."""
    numbers = starter.folder / "data" / "numbers.txt"
    numbers.parent.mkdir()
    numbers.write_text("\n".join(str(i) for i in range(16)))
    (starter.folder / "conf/experiment").mkdir(parents=True)
    (starter.folder / "conf/experiment/mine.yaml").write_text(EXPERIMENT)
    return write(starter.folder / "mine.py", NEVER)


def write(module: Path, fails_after: int) -> Path:
    module.write_text(MINE.replace("FAILS_AFTER", str(fails_after)))
    return module


def start(starter: Starter, *words: str, ranks: int = 1) -> Ended:
    given = ("--config-dir=conf", "experiment=mine", "run.name=r", "log.every=1", *words)
    return starter.run(ranks, *given, environ={"PYTHONPATH": str(starter.folder)})


def done(ended: Ended, says: str = "") -> None:
    assert set(ended.codes) == {0}, ended.output
    assert says in ended.output


def unfinish(results: Results) -> None:
    (results.folder / "summary.json").unlink()


def test_run_that_saved_nothing_begins_anew_with_the_corrected_code(starter: Starter, mine: Path) -> None:
    write(mine, 1)
    assert start(starter).codes == [1]
    write(mine, NEVER)
    done(start(starter), "so it begins anew: edited: mine.py")
    results = starter.results("r")
    assert [event["event"] for event in results.events() if event["event"] in ("start", "resume")] == ["start", "start"]
    assert [line["step"] for line in results.metrics("train")] == [1, 2, 3, 4]
    recorded = json.loads((results.folder / "environment.json").read_text())["code"]["mine.py"]
    write(mine, NEVER + 1)
    ended = start(starter)
    done(ended, "finished already: 4 steps")
    assert json.loads((results.folder / "environment.json").read_text())["code"]["mine.py"] == recorded


def test_run_that_saved_nothing_begins_anew_with_the_corrected_config(starter: Starter, mine: Path) -> None:
    write(mine, 1)
    assert start(starter).codes == [1]
    write(mine, NEVER)
    done(start(starter, "optim.lr=0.02"), "so it begins anew: optim.lr: 0.01 -> 0.02; edited: mine.py")
    stored = yaml.safe_load((starter.results("r").folder / "resolved.yaml").read_text())
    assert stored["optim"]["lr"] == 0.02


def test_run_that_saved_a_step_does_not_mix_two_versions_of_the_code(starter: Starter, mine: Path) -> None:
    write(mine, 3)
    assert start(starter).codes == [1], "in the third step or in the fourth, where the sanity check leaves no trace"
    write(mine, NEVER)
    ended = start(starter)
    assert ended.codes == [2]
    assert "its code or data changed: edited: mine.py" in ended.output
    kept = (starter.results("r").folder / "checkpoints").rename(starter.folder / "checkpoints")
    (starter.results("r").folder / "checkpoints").mkdir()
    assert "edited: mine.py" in start(starter).output, "events.jsonl has a step that was saved"
    kept.rename(starter.results("r").folder / "checkpoints")
    done(start(starter, "run.accept=changed"), "accepted: edited: mine.py")


@pytest.mark.parametrize("ranks", [1, 2])
def test_finished_run_says_so_whatever_became_of_its_code(starter: Starter, mine: Path, ranks: int) -> None:
    done(start(starter, ranks=ranks))
    for broken in ("x = 1", "import nothing_of_that_name", "def ("):
        mine.write_text(broken)
        ended = start(starter, ranks=ranks)
        done(ended, "finished already: 4 steps")
        assert ended.output.count("finished already") == 1
    ended = start(starter, "optim.lr=0.5", ranks=ranks)
    assert set(ended.codes) == {2}
    assert "the run of another config: optim.lr: 0.01 -> 0.5" in ended.output


def test_data_that_draw_by_themselves_are_told_once_and_the_run_goes_on(starter: Starter, mine: Path) -> None:
    ended = start(starter, "data.train._target_=mine.Drawn")
    done(ended, "data.train draws from a generator of its own")
    unfinish(starter.results("r"))
    ended = start(starter, "data.train._target_=mine.Drawn")
    done(ended)
    assert "generator" not in ended.output


def test_same_data_at_another_place_are_the_same_run_under_a_name_of_its_own(starter: Starter, mine: Path) -> None:
    done(start(starter))
    results = starter.results("r")
    sha = results.sha256
    (starter.folder / "data").rename(starter.folder / "moved")
    done(start(starter, "data.train.root=moved/numbers.txt"), "finished already")
    unfinish(results)
    done(start(starter, "data.train.root=moved/numbers.txt"), "data.train are the same at another place")
    assert any("moved/numbers.txt" in note for note in results.events("resume")[-1]["changed"])
    assert results.sha256 == sha
    (starter.folder / "moved/numbers.txt").write_text("\n".join(str(i + 1) for i in range(16)))
    ended = start(starter, "data.train.root=moved/numbers.txt")
    assert ended.codes == [2]
    assert "data.train.root: data/numbers.txt -> moved/numbers.txt" in ended.output


@pytest.mark.parametrize("file", ["resolved.yaml", "environment.json"])
def test_damaged_record_leaves_a_way_on(starter: Starter, mine: Path, file: str) -> None:
    done(start(starter))
    results = starter.results("r")
    sha, whole = results.sha256, (results.folder / file).read_text()
    unfinish(results)
    (results.folder / file).write_text("{")
    ended = start(starter)
    assert ended.codes == [2]
    assert re.search(rf"{re.escape(file)} is damaged .* Type run.accept=changed to write it anew", ended.output)
    assert start(starter, "run.accept=changed", "optim.lr=0.5").codes == [2], (
        "a checkpoint holds another digest" + whole
    )
    done(start(starter, "run.accept=changed"), "is damaged")
    assert results.sha256 == sha
    unfinish(results)
    done(start(starter))

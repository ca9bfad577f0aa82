"""A run's own folder holds its config, which replays it, and is trusted no further than the command line says."""

import os
import shutil
from pathlib import Path

import pytest
import yaml

from tests.ranks import Ended, Nursery, Starter

pytestmark = pytest.mark.xdist_group("replay")  # they look at copies of one run

SMALL = ("model=mlp", "model.hidden=[8]", "train.steps=2", "eval.every=null")
REPLAY = ("--config-name=resolved",)


@pytest.fixture(scope="module")
def finished(nursery: Nursery, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run."""
    starter = Starter(nursery, tmp_path_factory.mktemp("finished"))
    ended = starter.run(1, *SMALL, "run.fresh=true", "run.trust=[evil]")
    assert ended.codes == [0], ended.output
    (folder,) = (starter.folder / "runs").iterdir()
    return folder


@pytest.fixture
def run(starter: Starter, finished: Path) -> Path:
    """A copy of it, where the test's own starts look for it."""
    return shutil.copytree(finished, starter.folder / "runs" / finished.name)


def replay(starter: Starter, folder: Path, *words: str, path: str = ".") -> Ended:
    return starter.run(1, f"--config-dir={folder}", *REPLAY, *words, environ={"PYTHONPATH": path})


def edit(folder: Path, section: str, value: object) -> Path:
    """A copy of the stored config, as someone else may have written it."""
    stored = yaml.safe_load((folder / "resolved.yaml").read_text())
    stored[section] = value
    theirs = folder.parent.parent / "theirs"
    theirs.mkdir()
    (theirs / "resolved.yaml").write_text(yaml.safe_dump(stored))
    return theirs


def test_a_stored_config_replays_its_run(starter: Starter, run: Path) -> None:
    ended = replay(starter, run)
    assert ended.codes == [0], ended.output
    assert f"{run} finished already" in ended.output
    assert [folder.name for folder in run.parent.iterdir()] == [run.name], "run.fresh of then is no order of now"


def test_a_stored_config_takes_overrides(starter: Starter, run: Path) -> None:
    ended = replay(starter, run, "seed=1", "run.name=other")
    assert ended.codes == [0], ended.output
    assert "start at step 0/2" in ended.output
    assert (run.parent / "other" / "summary.json").exists()


EVIL = """
import os, torch
os.environ["IMPORTED"] = open("imported", "w").name

class Model(torch.nn.Linear):
    def __init__(self):
        super().__init__(784, 10)

    def forward(self, images):
        return super().forward(images.flatten(1))
"""


@pytest.mark.parametrize("nested", [False, True])
def test_classes_of_a_stored_config_are_refused_unless_trusted_now(starter: Starter, run: Path, nested: bool) -> None:
    (starter.folder / "evil.py").write_text(EVIL)
    target = {"_target_": "evil.Model"}
    theirs = edit(run, "model", {"_target_": "torch.nn.Sequential", "inner": [target]} if nested else target)
    ended = replay(starter, theirs, "run.name=new")
    assert ended.codes == [2]
    assert "evil.Model" in ended.output
    assert "type run.trust=[evil]" in ended.output
    assert ended.output.count("\n") == 1
    assert not (starter.folder / "imported").exists()
    assert not (run.parent / "new").exists()


def test_a_package_trusted_now_may_build_its_classes(starter: Starter, run: Path) -> None:
    (starter.folder / "evil.py").write_text(EVIL)
    ended = replay(starter, edit(run, "model", {"_target_": "evil.Model"}), "run.name=new", "run.trust=[evil]")
    assert ended.codes == [0], ended.output


ORDERS = {
    "callbacks": {"x": {"_target_": "os.mkdir", "path": "called"}},
    "job_logging": {"version": 1, "handlers": {"x": {"()": "os.mkdir", "path": "called"}}},
    "hydra_logging": {"version": 1, "handlers": {"x": {"()": "os.mkdir", "path": "called"}}},
    **{"run": {"dir": "called"}, "output_subdir": "x", "job": {"chdir": True}},
}


def test_what_a_stored_config_says_to_hydra_does_nothing(starter: Starter, run: Path) -> None:
    theirs = edit(run, "hydra", ORDERS)
    for words in ((), ("--cfg", "job"), ("--info", "config"), ("--help",)):
        replay(starter, theirs, *words)
        assert not os.path.lexists(starter.folder / "called"), words


DAMAGE = {
    "garbage": b"\x00\xff\xfe garbage",
    "no mapping": b"- a\n- b\n",
    "empty": b"",
    "unclosed": b"run: {name: [",
    "unknown key": b"colour: blue\n",
}


@pytest.mark.parametrize("damage", [*DAMAGE, "cut short"])
def test_a_damaged_config_is_told_and_nothing_is_touched(starter: Starter, run: Path, damage: str) -> None:
    stored = run / "resolved.yaml"
    whole = stored.read_bytes()
    stored.write_bytes(DAMAGE.get(damage, whole[: len(whole) // 2]))
    refused_untouched(starter, run, "resolved.yaml is damaged")


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b"\xff", b"{}", b'{"code": 1, "data": {}, "auto": {}}'])
def test_a_damaged_environment_is_told_and_nothing_is_touched(starter: Starter, run: Path, damage: bytes) -> None:
    (run / "environment.json").write_bytes(damage)
    refused_untouched(starter, run, "environment.json is damaged")


def test_a_run_of_another_config_is_told_by_what_differs(starter: Starter, run: Path) -> None:
    refused_untouched(starter, run, "optim.lr: 0.001 -> 0.5", "optim.lr=0.5")


def refused_untouched(starter: Starter, run: Path, says: str, *words: str) -> None:
    before = contents(run)
    ended = starter.run(1, *SMALL, *words, f"run.name={run.name}")
    assert ended.codes == [2], ended.output
    assert ended.output.count("\n") == 1
    assert ended.output.startswith("error: ")
    assert says in ended.output
    assert "run.fresh=true" in ended.output
    assert contents(run) == before


def contents(run: Path) -> dict[Path, bytes]:
    """Every file but the lock, which says who looked at the folder last."""
    return {path: path.read_bytes() for path in run.rglob("*") if path.is_file() and path.name != ".lock"}

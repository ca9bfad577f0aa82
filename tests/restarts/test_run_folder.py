"""Whose a run's folder is: code or data that changed, other versions, beginning anew, two starts at once, secrets."""

import json
import os
import shutil
import signal
from pathlib import Path

import pytest

from tests.ranks import Results, Starter, holder, until
from tests.train.distributed.fault_injection import TASK, Sabotage

RUN = ("model=mlp", "model.hidden=[8]", "train.steps=12", "log.every=2", "checkpoint.every=3")
OWN = ("data.train._target_=mine.Own", "data.train.split=train", "run.name=r")
MINE = """
import os
from phalanx.train.data.digits import Digits

class Own(Digits):
    def fingerprint(self) -> str:
        return open(os.environ["OWN_DATA"]).read()
"""


@pytest.fixture
def own(tmp_path: Path) -> dict[str, str]:
    """A package of the user's, and data that is told apart by what a file says."""
    (tmp_path / "mine.py").write_text(MINE)
    (tmp_path / "data").write_text("first")
    return {"PYTHONPATH": str(tmp_path), "OWN_DATA": str(tmp_path / "data")}


def interrupt(starter: Starter, *overrides: str, environ: dict[str, str], name: str = "r") -> Results:
    """Begin a run and end it after its first checkpoint."""
    results = starter.results(name)
    world = starter.start(1, *RUN, *overrides, "train.steps=3000", environ=environ)
    until(lambda: (results.folder / "events.jsonl").exists() and bool(results.events("checkpoint")))
    world.kill()
    world.wait()
    return results


def contents(folder: Path) -> dict[str, bytes]:
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {str(path): path.read_bytes() for path in paths}


@pytest.mark.parametrize("what", ["code", "data"])
def test_change_under_a_run_is_named_and_changes_nothing_until_it_is_accepted(
    starter: Starter, own: dict[str, str], what: str
) -> None:
    results = interrupt(starter, *OWN, environ=own)
    before = contents(results.folder)
    if what == "code":
        (starter.folder / "mine.py").write_text(MINE + "# another thought\n")
    else:
        (starter.folder / "data").write_text("second")
    long = (*RUN, *OWN, "train.steps=3000")
    ended = starter.run(2, *long, environ=own)
    named = "edited: mine.py" if what == "code" else "what data.train holds"
    assert ended.codes == [2, 2]
    assert ended.output.count(named) == 1
    assert "run.accept=changed" in ended.output
    assert "run.fresh=true" in ended.output
    assert "Traceback" not in ended.output
    assert contents(results.folder) == before
    world = starter.start(1, *long, "run.accept=changed", environ=own)
    until(lambda: bool(results.events("resume")))
    world.kill()
    world.wait()
    [resumed] = results.events("resume")
    assert resumed["changed"] == [f"accepted: {named}"]
    world = starter.start(1, *long, environ=own)  # from now on this is what the run is made of
    until(lambda: len(results.events("resume")) == 2)
    world.kill()
    assert world.wait().codes == [-signal.SIGKILL]


def test_fresh_sets_the_folder_aside_but_not_when_the_same_start_is_tried_again(
    starter: Starter, own: dict[str, str]
) -> None:
    results = interrupt(starter, *OWN, environ=own)
    before = {Path(path).name: content for path, content in contents(results.folder).items()}
    fresh = (*RUN, *OWN, "run.fresh=true", "train.steps=3000")
    world = starter.start(1, *fresh, environ=own)
    aside = results.folder.with_name("r.set-aside-1")
    until(lambda: aside.exists() and (results.folder / "events.jsonl").exists() and bool(results.events("checkpoint")))
    world.kill()
    world.wait()
    found = {Path(path).name: content for path, content in contents(aside).items()}
    assert found.keys() - before.keys() == {"00000002.json", "00000002.released"}, "who set it aside"
    assert all(found[name] == content for name, content in before.items())
    again = starter.start(1, *fresh, environ=own, attempt=1)
    until(lambda: bool(results.events("resume")))
    again.kill()
    again.wait()
    assert not results.folder.with_name("r.set-aside-2").exists()
    # A launch whose first attempt had not come as far as the folder sets it aside at the second, and only then.
    launched = {**own, "PHALANX_LAUNCH": "one"}
    late = starter.start(1, *fresh, environ=launched, attempt=1)
    aside = results.folder.with_name("r.set-aside-2")
    until(lambda: aside.exists() and (results.folder / "events.jsonl").exists() and bool(results.events("checkpoint")))
    late.kill()
    late.wait()
    later = starter.start(1, *fresh, environ=launched, attempt=2)
    until(lambda: bool(results.events("resume")))
    later.kill()
    later.wait()
    assert not results.folder.with_name("r.set-aside-3").exists()
    theirs = starter.folder / "runs/theirs"
    theirs.mkdir()
    (theirs / "thesis.txt").write_text("years of work")
    ended = starter.run(1, *RUN, "run.name=theirs", "run.fresh=true")
    assert ended.codes == [2]
    assert "is no run's folder" in ended.output
    assert (theirs / "thesis.txt").exists()


def test_other_versions_are_a_warning_and_an_event(starter: Starter, own: dict[str, str]) -> None:
    results = interrupt(starter, *OWN, environ=own)
    path = results.folder / "environment.json"
    found = json.loads(path.read_text())
    assert found["code"]["mine.py"]
    assert found["data"]["data.train"] == "first"
    assert found["auto"] == {"train.precision": "fp32", "world.device": "cpu"}
    assert found["command"][0] == "train/main.py"
    path.write_text(json.dumps({**found, "torch": "1.0.0"}))
    world = starter.start(1, *RUN, *OWN, "train.steps=3000", environ=own)
    until(lambda: bool(results.events("resume")))
    world.kill()
    assert "WARNING: since the run began: torch: 1.0.0 before" in world.wait().output
    assert any("torch: 1.0.0 before" in note for note in results.events("resume")[0]["changed"])


def test_who_comes_first_into_a_folder_that_another_start_made_begins_the_run(starter: Starter) -> None:
    """Also where that one died before it said a word."""
    results = starter.train(1, *RUN, name="r")
    made = {"resolved.yaml", "environment.json"}
    for path in results.folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name not in made:
            path.unlink()
    again = starter.train(1, *RUN, name="r")
    assert [event["event"] for event in again.events()].count("start") == 1
    assert again.events("resume") == []


def test_two_starts_of_a_new_run_at_once_make_one_run(starter: Starter) -> None:
    mark = starter.folder / "mark"  # whoever gets to the third step waits there
    environ = Sabotage(0, "step", "stop", 3, str(mark)).environ()
    worlds = [starter.start(1, *RUN, TASK, "run.name=r", environ=environ) for _ in range(3)]
    until(mark.exists)
    winner = holder(starter.folder / "runs/r")
    for loser in (world for world in worlds if world.pids != [winner]):
        ended = loser.wait()
        assert ended.codes == [2], ended.output
        assert f"is in use: process {winner}" in ended.output
        assert "Traceback" not in ended.output
    [first] = (world for world in worlds if world.pids == [winner])
    first.kill(with_signal=signal.SIGCONT)
    assert first.wait().codes == [0]
    assert [line["step"] for line in starter.results("r").metrics("train")] == [2, 4, 6, 8, 10, 12]
    assert len(starter.results("r").events("start")) == 1
    left = [path.name for path in (starter.folder / "runs").iterdir()]
    assert left == ["r"]


def test_running_run_is_neither_continued_nor_set_aside_by_another_start(starter: Starter) -> None:
    mark = starter.folder / "mark"
    world = starter.start(1, *RUN, TASK, "run.name=r", environ=Sabotage(0, "step", "stop", 5, str(mark)).environ())
    until(mark.exists)
    try:
        for more in ((), ("run.fresh=true",)):
            ended = starter.run(1, *RUN, TASK, "run.name=r", *more)
            assert ended.codes == [2]
            assert f"is in use: process {world.pids[0]}" in ended.output
    finally:
        world.kill()
        world.wait()
    assert starter.run(1, *RUN, TASK, "run.name=r").codes == [0]


def test_no_secret_reaches_a_file_or_the_console(starter: Starter, own: dict[str, str]) -> None:
    secret, password = "hunter2-is-not-a-good-one", "correct-horse-battery"
    (starter.folder / "mine.py").write_text(
        MINE
        + f"""
    def __init__(self, split, password):
        super().__init__(split)
        self.fetched = 0
        import logging
        logging.getLogger("mine").warning("signing in with %s", os.environ["OWN_TOKEN"])

    def __getitems__(self, indices):
        self.fetched += 1
        if self.fetched > 6 and os.path.exists(os.environ["OWN_DATA"] + ".bad"):
            raise RuntimeError("refused: " + os.environ["OWN_TOKEN"] + " for password='{password}'")
        return super().__getitems__(indices)
"""
    )
    environ = {**own, "OWN_TOKEN": secret}
    run = (*RUN, *OWN, f"+data.train.password={password}", "wandb.mode=offline", "log.every=2")
    ended = starter.run(1, *run, environ=environ)
    assert ended.codes == [0], ended.output
    (starter.folder / "data.bad").touch()
    failed = starter.run(2, *run, "run.name=bad", environ=environ)
    assert failed.codes == [1, 1]
    assert "RuntimeError: refused: [redacted]" in failed.output
    for text in (secret, password):
        assert text not in ended.output + failed.output
        for path in (starter.folder / "runs").rglob("*"):
            assert not path.is_file() or text.encode() not in path.read_bytes(), path
    for rank in range(2):
        assert "refused: [redacted]" in (starter.folder / f"runs/bad/logs/rank_{rank}.log").read_text()
    assert os.path.exists(starter.results("r").folder / "wandb")

"""Who may write to a run's folder, and that an older start reaches nothing that readers see."""

import errno
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.ranks import Starter, holder, until
from tests.runs.test_resume import same
from tests.world.saboteur import TASK, Sabotage
from train import lease
from train.checkpoint import Checkpoints
from train.lease import claim
from train.outcome import ConfigError

NONE: dict[str, str] = {}
RUN = ("model=mlp", "model.hidden=[8]", "train.steps=60", "log.every=5", "checkpoint.every=10", "eval.every=20")


def change(run: Path, incarnation: int, **facts: object) -> None:
    path = run / f"lease/{incarnation:08d}.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **facts}))


def age(run: Path, incarnation: int, seconds: float) -> None:
    then = time.time() - seconds
    os.utime(run / f"lease/{incarnation:08d}.json", (then, then))


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "_DYING_S", 0.2)
    monkeypatch.setattr(lease, "DEAD_S", 0.5)
    monkeypatch.setattr(lease, "BEAT_S", 0.1)


@pytest.mark.usefixtures("quick")
def test_live_holder_is_named_and_its_run_is_left_alone(tmp_path: Path) -> None:
    with claim(tmp_path, 0, NONE), pytest.raises(ConfigError, match=f"in use: process {os.getpid()} on "):
        claim(tmp_path, 0, NONE)


def test_run_that_was_given_back_is_free_at_once(tmp_path: Path) -> None:
    for incarnation in (1, 2, 3):
        with claim(tmp_path, 0, NONE) as held:
            assert held.incarnation == incarnation


def test_file_that_belongs_to_another_number_is_nobodys(tmp_path: Path) -> None:
    with claim(tmp_path, 0, NONE):
        (tmp_path / "lease/00000001.json").rename(tmp_path / "lease/00000003.json")
        assert lease.live(tmp_path) is None
        assert lease.holders(tmp_path) == []


def test_start_that_comes_to_nothing_leaves_nothing(tmp_path: Path) -> None:
    claim(tmp_path, 0, NONE).withdraw()
    assert list((tmp_path / "lease").iterdir()) == []


def test_dead_process_of_this_machine_holds_nothing_not_even_when_its_number_is_used_again(tmp_path: Path) -> None:
    claim(tmp_path, 0, NONE).close()
    (tmp_path / "lease/00000001.released").unlink()
    change(tmp_path, 1, began=1)  # whoever has this number now began at another time
    began = time.monotonic()
    claim(tmp_path, 0, NONE).close()
    assert time.monotonic() - began < 1.0


@pytest.mark.usefixtures("quick")
def test_holder_on_another_machine_lives_as_long_as_it_touches_its_file(tmp_path: Path) -> None:
    with claim(tmp_path, 0, NONE):
        change(tmp_path, 1, machine="elsewhere", host="n7")
        with pytest.raises(ConfigError, match=r"in use: process .* on n7"):
            claim(tmp_path, 0, NONE)
    (tmp_path / "lease/00000001.released").unlink()
    began = time.monotonic()
    claim(tmp_path, 0, NONE).close()
    assert 0.1 < time.monotonic() - began < 5.0


def test_age_is_told_by_the_clock_of_the_file_system(tmp_path: Path) -> None:
    claim(tmp_path, 0, NONE).close()
    (tmp_path / "lease/00000001.released").unlink()
    change(tmp_path, 1, machine="elsewhere")
    age(tmp_path, 1, lease.DEAD_S + 1)
    began = time.monotonic()
    claim(tmp_path, 0, NONE).close()
    assert time.monotonic() - began < 1.0


@pytest.mark.usefixtures("quick")
def test_job_that_slurm_starts_again_takes_over_at_once_and_another_job_does_not(tmp_path: Path) -> None:
    first = claim(tmp_path, 0, {"SLURM_JOB_ID": "5"})
    with pytest.raises(ConfigError, match="in use"):
        claim(tmp_path, 0, {"SLURM_JOB_ID": "6"})
    with pytest.raises(ConfigError, match="in use"):  # within the same allocation
        claim(tmp_path, 0, {"SLURM_JOB_ID": "5", "PHALANX_RESTART_COUNT": "1"})
    second = claim(tmp_path, 1, {"SLURM_JOB_ID": "5", "SLURM_RESTART_COUNT": "1"})
    assert second.incarnation == 2
    with pytest.raises(ConfigError, match="has taken over"):
        lease.check(tmp_path, first.incarnation)
    lease.check(tmp_path, second.incarnation)
    first.close()
    second.close()


def claimed(run: Path, answers: "multiprocessing.Queue[int]", go: "multiprocessing.synchronize.Event") -> None:
    go.wait()
    try:
        held = claim(run, 0, NONE)
    except ConfigError:
        answers.put(0)
        return
    answers.put(held.incarnation)
    while answers.qsize() < 4:
        time.sleep(0.01)


def without_links(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on some FUSE file systems, where a file is not there whole at once: here not for a good while."""

    def link(source: Path, target: Path) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    def replace(source: Path, target: Path, replace: Callable[[Path, Path], None] = os.replace) -> None:
        time.sleep(0.1)
        replace(source, target)

    monkeypatch.setattr(os, "link", link)
    monkeypatch.setattr(os, "replace", replace)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("links", [True, False], ids=["", "file system without links"])
def test_one_of_many_that_come_at_once_gets_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool) -> None:
    if not links:
        without_links(monkeypatch)
    context = multiprocessing.get_context("fork")
    answers, go = context.Queue(), context.Event()
    processes = [context.Process(target=claimed, args=(tmp_path, answers, go)) for _ in range(4)]
    for process in processes:
        process.start()
    go.set()
    for process in processes:
        process.join(30)
    assert sorted(answers.get(timeout=5) for _ in processes) == [0, 0, 0, 1]


def saved(checkpoints: Checkpoints, step: int, text: str) -> None:
    staging = checkpoints.staging(step)
    staging.mkdir(parents=True)
    (staging / "state.pt").write_text(text)
    checkpoints.commit(step, {})


def test_checkpoint_that_a_replaced_start_commits_late_counts_for_nobody(tmp_path: Path) -> None:
    """It had looked for a newer start just before that one came."""
    (tmp_path / "checkpoints").mkdir()
    for _ in range(2):
        claim(tmp_path, 0, NONE).close()
    late = tmp_path / "lease/00000002.json"
    hidden = late.rename(tmp_path / "hidden")
    old, new = Checkpoints(tmp_path, 1), Checkpoints(tmp_path, 2)
    saved(old, 10, "old")
    saved(old, 20, "old")
    hidden.rename(late)
    lease.begins_at(tmp_path, 2, 10)
    assert new.steps() == [10]
    saved(new, 20, "new")
    assert new.steps() == [10, 20]
    assert (tmp_path / "checkpoints/step_00000020/state.pt").read_text() == "new"
    assert (tmp_path / "checkpoints/step_00000020.fenced/state.pt").read_text() == "old"
    with pytest.raises(ConfigError, match="has taken over"):
        old.retain(1, None)
    late.rename(hidden)
    with pytest.raises(ConfigError, match="was saved by a newer start"):
        saved(old, 20, "old once more")
    assert (tmp_path / "checkpoints/step_00000020/state.pt").read_text() == "new"


def sleeps(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].startswith("T")


@pytest.mark.parametrize("ranks", [1, 2])
def test_start_that_sleeps_through_its_replacement_leaves_with_a_word_and_changes_nothing(
    starter: Starter, ranks: int
) -> None:
    """Frozen, taken for dead by Slurm, which starts its job once more; then it wakes up and goes on writing."""
    undisturbed = starter.train(ranks, *RUN, TASK, name="undisturbed")
    mark = starter.folder / "mark"
    frozen = Sabotage(0, "step", "stop", 27, str(mark)).environ()
    asleep = starter.start(ranks, *RUN, TASK, "run.name=r", environ={**frozen, "SLURM_JOB_ID": "5"})
    until(mark.exists)
    results = starter.results("r")
    again = {"SLURM_JOB_ID": "5", "SLURM_RESTART_COUNT": "1"}
    replacement = starter.start(
        ranks, *RUN, TASK, "run.name=r", environ={**again, **Sabotage(0, "step", "stop", 20).environ()}
    )
    until(lambda: any(event["event"] == "resume" for event in results.events()))
    asleep.kill(with_signal=signal.SIGCONT)
    ended = asleep.wait()
    assert ended.codes == [2] * ranks, ended.output
    assert ended.output.count("has taken over") == 1
    assert f"process {replacement.pids[0]} on " in ended.output
    assert "Traceback" not in ended.output
    assert holder(results.folder) == replacement.pids[0]
    until(lambda: sleeps(replacement.pids[0]))
    replacement.kill(with_signal=signal.SIGCONT)
    ended = replacement.wait()
    assert ended.codes == [0] * ranks, ended.output
    same(undisturbed, results)
    assert [event["event"] for event in results.events()].count("error") == 0


def test_run_is_free_as_soon_as_its_process_was_killed(starter: Starter) -> None:
    program = f"""
from pathlib import Path
from train.lease import claim
claim(Path({str(starter.folder)!r}), 0, {{}})
print(flush=True)
input()
"""
    with subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(lease.__file__).parents[1],
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.kill()
    began = time.monotonic()
    claim(starter.folder, 0, NONE).close()
    assert time.monotonic() - began < 1.0

"""Who may write to a run's folder, and that an older start reaches nothing that readers see."""

import errno
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from phalanx.exit.codes import ConfigError
from phalanx.run_folder import lease, lease_holders, liveness
from phalanx.run_folder.checkpoints import Checkpoints
from phalanx.run_folder.lease import acquire
from tests.compare_runs import same
from tests.ranks import ROOT, Starter, holder, until
from tests.train.distributed.fault_injection import TASK, Sabotage

NONE: dict[str, str] = {}
RUN = ("model=mlp", "model.hidden=[8]", "train.steps=60", "log.every=5", "checkpoint.every=10", "eval.every=20")


def waits(seconds: float) -> None:
    """In the place of time.sleep, where there is nobody to wait for."""
    raise AssertionError(f"slept for {seconds} s")


def change(run: Path, incarnation: int, **facts: object) -> None:
    path = run / f"lease/{incarnation:08d}.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **facts}))


def age(run: Path, incarnation: int, seconds: float) -> None:
    then = time.time() - seconds
    os.utime(run / f"lease/{incarnation:08d}.json", (then, then))


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "_EXIT_S", 0.2)
    monkeypatch.setattr(liveness, "DEAD_S", 0.5)
    monkeypatch.setattr(liveness, "BEAT_S", 0.1)


@pytest.mark.usefixtures("quick")
def test_live_holder_is_named_and_its_run_is_left_alone(tmp_path: Path) -> None:
    with acquire(tmp_path, 0, NONE), pytest.raises(ConfigError, match=f"in use: process {os.getpid()} on "):
        acquire(tmp_path, 0, NONE)


def test_run_that_was_given_back_is_free_at_once(tmp_path: Path) -> None:
    for incarnation in (1, 2, 3):
        with acquire(tmp_path, 0, NONE) as held:
            assert held.incarnation == incarnation


def test_file_that_belongs_to_another_number_is_nobodys(tmp_path: Path) -> None:
    with acquire(tmp_path, 0, NONE):
        (tmp_path / "lease/00000001.json").rename(tmp_path / "lease/00000003.json")
        assert liveness.live(tmp_path) is None
        assert lease_holders.holders(tmp_path) == []


def test_start_that_comes_to_nothing_leaves_nothing(tmp_path: Path) -> None:
    acquire(tmp_path, 0, NONE).withdraw()
    assert list((tmp_path / "lease").iterdir()) == []


def test_dead_process_of_this_machine_holds_nothing_not_even_when_its_number_is_used_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    acquire(tmp_path, 0, NONE).close()
    (tmp_path / "lease/00000001.released").unlink()
    change(tmp_path, 1, began=1)  # whoever has this number now began at another time
    monkeypatch.setattr(time, "sleep", waits)
    acquire(tmp_path, 0, NONE).close()


@pytest.mark.usefixtures("quick")
def test_holder_on_another_machine_lives_as_long_as_it_touches_its_file(tmp_path: Path) -> None:
    with acquire(tmp_path, 0, NONE):
        change(tmp_path, 1, machine="elsewhere", host="n7")
        with pytest.raises(ConfigError, match=r"in use: process .* on n7"):
            acquire(tmp_path, 0, NONE)
    (tmp_path / "lease/00000001.released").unlink()
    began = time.monotonic()
    acquire(tmp_path, 0, NONE).close()
    assert 0.1 < time.monotonic() - began < 30.0


def elsewhere(run: Path) -> None:
    """A start that held the run on another machine and never gave it back."""
    acquire(run, 0, NONE).close()
    (run / "lease/00000001.released").unlink()
    change(run, 1, machine="elsewhere", host="n7")


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("behind_s", [40.0, -40.0, -86400.0])
def test_holder_lives_while_it_touches_its_file_whatever_the_clocks_say(tmp_path: Path, behind_s: float) -> None:
    elsewhere(tmp_path)
    over = threading.Event()

    def beat() -> None:
        while not over.wait(liveness.BEAT_S):
            age(tmp_path, 1, behind_s)

    with closing_thread(threading.Thread(target=beat), over):
        age(tmp_path, 1, behind_s)
        assert liveness.live(tmp_path) is not None
        with pytest.raises(ConfigError, match=r"in use: process .* on n7"):
            acquire(tmp_path, 0, NONE)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("behind_s", [0.0, 40.0, -86400.0])
def test_holder_that_touches_its_file_no_more_is_dead_whatever_the_clocks_say(tmp_path: Path, behind_s: float) -> None:
    elsewhere(tmp_path)
    age(tmp_path, 1, behind_s)
    began = time.monotonic()
    acquire(tmp_path, 0, NONE).close()
    assert time.monotonic() - began < 30.0
    (tmp_path / "lease/00000002.json").unlink()
    age(tmp_path, 1, behind_s or 40.0)
    assert liveness.live(tmp_path) is None


@contextmanager
def closing_thread(thread: threading.Thread, over: threading.Event) -> Iterator[None]:
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


ODD: tuple[object, ...] = (-1, 0, -(2**31), 2**31, 2**70, 1.5, "1", True, None, [1], {})


@pytest.mark.parametrize("pid", ODD, ids=repr)
@pytest.mark.parametrize("began", [None, -1])
def test_lease_that_names_more_than_a_process_is_nobodys(tmp_path: Path, pid: object, began: object) -> None:
    """To -1 a signal goes to all processes of a user, to 0 and others below to whole groups."""
    acquire(tmp_path, 0, NONE).close()
    (tmp_path / "lease/00000001.released").unlink()
    change(tmp_path, 1, pid=pid, began=began)
    assert liveness.live(tmp_path) is None
    assert lease_holders.holders(tmp_path) == []


def test_process_that_does_not_hold_the_folder_does_not_count(tmp_path: Path) -> None:
    """Neither where a lease names it, down to its start, nor in a copy of the folder; what is moved stays held."""
    run, copy, moved = (tmp_path / name for name in ("run", "copy", "moved"))
    run.mkdir()
    with acquire(run, 0, NONE):
        shutil.copytree(run, copy)
        (holder,) = (holder for holder, _ in lease_holders.holders(copy))
        assert liveness.live(run) == holder
        assert liveness.is_process_of(run, holder)
        assert liveness.live(copy) is None
        assert not liveness.is_process_of(copy, holder)
        program = (
            "from pathlib import Path; from phalanx.run_folder.lease import acquire; "
            f"acquire(Path({str(copy)!r}), 0, {{}}).close()"
        )
        subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)
        run.rename(moved)
        assert liveness.live(moved) == holder
    other = subprocess.Popen(["sleep", "60"])
    try:
        stat = Path(f"/proc/{other.pid}/stat").read_text().rpartition(") ")[2].split()
        for opened in (True, False):
            change(moved, 1, pid=other.pid, began=int(stat[19]), opened=opened)
            (named,) = (holder for holder, _ in lease_holders.holders(moved))
            assert not liveness.is_process_of(moved, named)
    finally:
        other.kill()
        other.wait()


def test_folder_of_leases_may_be_no_link_and_hold_odd_things(tmp_path: Path) -> None:
    """A stranger's folder does not have others written to, read for ever, or a start wait for a pipe."""
    run, victim = tmp_path / "run", tmp_path / "victim"
    run.mkdir()
    victim.mkdir()
    (run / "lease").symlink_to(victim)
    with pytest.raises(ConfigError, match="cannot be held"):
        acquire(run, 0, NONE)
    assert not list(victim.iterdir())
    (run / "lease").unlink()
    paths = [run / f"lease/{number:08d}.json" for number in range(1, 7)]
    paths[0].mkdir(parents=True)
    os.mkfifo(paths[1])
    paths[2].symlink_to("/dev/zero")
    paths[3].write_text("[" * 60_000)
    paths[4].write_bytes(b"\xff\0")
    paths[5].touch()
    os.truncate(paths[5], 2**40)
    assert lease_holders.holders(run) == []
    assert liveness.live(run) is None
    acquire(run, 0, NONE).close()


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    ("job", "restarts"), [("SLURM_JOB_ID", "SLURM_RESTART_COUNT"), ("PHALANX_JOB", "PHALANX_JOB_RESTARTS")]
)
def test_job_that_its_cluster_starts_again_takes_over_at_once_and_another_job_does_not(
    tmp_path: Path, job: str, restarts: str
) -> None:
    """Slurm says which in a script of the user's own, a job of phalanx submit on any cluster."""
    first = acquire(tmp_path, 0, {job: "5"})
    with pytest.raises(ConfigError, match="in use"):
        acquire(tmp_path, 0, {job: "6"})
    with pytest.raises(ConfigError, match="in use"):  # within the same allocation
        acquire(tmp_path, 0, {job: "5", "PHALANX_RESTART_COUNT": "1"})
    second = acquire(tmp_path, 1, {job: "5", restarts: "1"})
    assert second.incarnation == 2
    with pytest.raises(ConfigError, match="has taken over"):
        lease.check(tmp_path, first.incarnation)
    lease.check(tmp_path, second.incarnation)
    first.close()
    second.close()


def claimed(run: Path, answers: "multiprocessing.Queue[int]", go: "multiprocessing.synchronize.Event") -> None:
    go.wait()
    try:
        held = acquire(run, 0, NONE)
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
        acquire(tmp_path, 0, NONE).close()
    late = tmp_path / "lease/00000002.json"
    hidden = late.rename(tmp_path / "hidden")
    old, new = Checkpoints(tmp_path, 1), Checkpoints(tmp_path, 2)
    saved(old, 10, "old")
    saved(old, 20, "old")
    hidden.rename(late)
    lease_holders.set_from_step(tmp_path, 2, 10)
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


@pytest.mark.parametrize("after", [0, 3])
def test_start_that_sleeps_within_a_save_through_its_replacement_leaves_with_a_word(
    starter: Starter, after: int
) -> None:
    """The replacement takes away what the save had written so far."""
    frozen = Sabotage(0, "write", "stop", after, str(starter.folder / "mark")).environ()
    asleep = starter.start(1, *RUN, TASK, "run.name=r", environ={**frozen, "SLURM_JOB_ID": "5"})
    until((starter.folder / "mark").exists)
    again = {"SLURM_JOB_ID": "5", "SLURM_RESTART_COUNT": "1"}
    assert starter.run(1, *RUN, TASK, "run.name=r", environ=again).codes == [0]
    asleep.kill(with_signal=signal.SIGCONT)
    ended = asleep.wait()
    assert ended.codes == [2], ended.output
    assert ended.output.count("has taken over") == 1
    assert "Traceback" not in ended.output


def test_run_is_free_as_soon_as_its_process_was_killed(starter: Starter, monkeypatch: pytest.MonkeyPatch) -> None:
    program = f"""
from pathlib import Path
from phalanx.run_folder.lease import acquire
acquire(Path({str(starter.folder)!r}), 0, {{}})
print(flush=True)
input()
"""
    with subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=ROOT,
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.kill()
    monkeypatch.setattr(time, "sleep", waits)
    acquire(starter.folder, 0, NONE).close()

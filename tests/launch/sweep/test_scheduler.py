"""How the slots of a sweep begin, follow and end runs, with ranks that stand in for real ones: no process is started."""

import errno
import itertools
import json
import os
import random
import select
import signal
import traceback
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from optuna.storages.journal import JournalFileBackend

from phalanx.exit.codes import ExitCode
from phalanx.launch.search.space import SearchSpace, parse_space
from phalanx.launch.search.storage_retry import StorageUnavailable
from phalanx.launch.sweep.scheduler import Scheduler
from phalanx.launch.sweep.workers import ForkServerDied, Slot
from tests.launch.sweep.queues import settings, start, states
from tests.launch.sweep.stubs import StubForkServer, StubRanks, StubSignals, finish, scheduler_of, scheduling


def test_a_trial_that_ends_before_it_is_looked_at_first_counts(tmp_path: Path) -> None:
    """As on a busy machine, where a rank has crashed before this process runs again."""
    with scheduling(tmp_path, lambda group: group.end(1, f"a bug of {group.run}")) as (scheduler, queue, ranks):
        assert scheduler.run() is ExitCode.BUG
        assert states(queue) == {0: "fail", 1: "fail"}
        assert all(trial.user_attrs["rank_s"] >= 0.0 for trial in queue.search.trials())
        assert len(ranks.groups) == 2


def test_a_sweep_whose_trials_all_fail_has_failed_and_tells_the_commonest_reason(tmp_path: Path) -> None:
    with scheduling(tmp_path, lambda group: group.end(1, "loss is not finite")) as (scheduler, queue, _):
        assert scheduler.run() is ExitCode.BUG
        assert queue.search.reasons() == [("loss is not finite", 2)]


def test_a_metric_that_never_appears_ends_the_sweep_at_its_first_evaluation_with_one_message(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def act(group: StubRanks) -> None:
        (tmp_path / group.run).mkdir(exist_ok=True)
        line = {"step": 4, "split": "eval", "time": 1.0, "accuracy": 0.5}
        (tmp_path / group.run / "metrics.jsonl").write_text(json.dumps(line) + "\n")
        if signal.SIGTERM in group.heard:
            group.end(3)

    with scheduling(tmp_path, act, [None]) as (scheduler, queue, ranks):
        assert scheduler.run() is ExitCode.CONFIG
        assert set(states(queue).values()) == {"running"}
        assert all(group.heard[0] is signal.SIGTERM for group in ranks.groups)
    told = capsys.readouterr().err
    assert told == "error: sweep.metric=loss is no metric of the task, which has accuracy. Type one of them\n"


def test_a_stopped_trial_stays_open_while_the_others_are_trained(tmp_path: Path) -> None:
    def act(group: StubRanks) -> None:
        group.end(7) if group.run == "0000" else finish(queue, group)

    with scheduling(tmp_path, act) as (scheduler, queue, ranks):
        assert scheduler.run() is ExitCode.STOPPED
        assert (queue.states(), states(queue)[1]) == ({0: "stopped"}, "complete")
        assert len(ranks.groups) == 2
    with scheduling(tmp_path, lambda group: finish(queue, group)) as (scheduler, queue, _):
        assert scheduler.run() is ExitCode.FINISHED
        assert states(queue) == {0: "complete", 1: "complete"}


def test_a_hung_trial_is_waited_for_by_name_and_only_so_long(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("phalanx.launch.sweep.shutdown._TELL_S", 0.05)

    def act(group: StubRanks) -> None:
        if signal.SIGTERM in group.heard and group.run == "0000":
            group.end(3)
        if signal.SIGKILL in group.heard:
            group.end(-9)

    with scheduling(tmp_path, act, [None, signal.SIGINT], grace_s=0.3) as (scheduler, queue, _):
        assert scheduler.run() is ExitCode.STOPPED
        assert scheduler.unsaved == [1]
        assert states(queue) == {0: "running", 1: "running"}, "their ends are open"
    told = capsys.readouterr().out
    assert "saving 0000 (process 4000000), 0001 (process 4000000) and leaving; Ctrl-C again ends at once" in told
    assert "waiting for 0001 (process 4000000) to save, 0 s of 0.3 s" in told


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_a_disk_that_is_full_ends_the_sweep_with_all_saved_and_one_message(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def act(group: StubRanks) -> None:
        if signal.SIGTERM in group.heard:
            group.end(3)

    def full(*_: Any) -> None:
        raise OSError(number, "it is full")

    with scheduling(tmp_path, act, [None]) as (scheduler, queue, ranks):
        monkeypatch.setattr(queue.search.study._storage, "set_trial_user_attr", full)
        monkeypatch.setattr(scheduler, "_changed", full)
        trial_runs = iter(queue.plan.trial_runs(0))
        monkeypatch.setattr(queue, "take", lambda: next(trial_runs, None))
        queue.search.ask()
        scheduler._shown = 0.0
        assert scheduler.run() is ExitCode.NO_ROOM
        assert all(group.heard == [signal.SIGTERM] for group in ranks.groups)
        assert ranks.groups
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert f"{tmp_path} cannot be written: it is full (" in told


def test_a_run_that_had_no_room_is_no_failed_trial(tmp_path: Path) -> None:
    with scheduling(tmp_path, lambda group: group.end(8, "the disk is full")) as (scheduler, queue, _):
        assert scheduler.run() is ExitCode.NO_ROOM
        assert set(states(queue).values()) == {"running"}


def test_a_storage_that_stays_away_ends_the_sweep_with_all_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def act(group: StubRanks) -> None:
        if signal.SIGTERM in group.heard:
            group.end(3)

    def away(*_: Any, **__: Any) -> None:
        raise StorageUnavailable("it is away")

    with scheduling(tmp_path, act, [None, None]) as (scheduler, queue, ranks):
        changed = SimpleNamespace(calls=0)

        def lose(_: Scheduler) -> None:
            changed.calls += 1
            for name in ("get_all_trials", "set_trial_user_attr"):
                monkeypatch.setattr(queue.search.study._storage, name, away)

        monkeypatch.setattr(scheduler, "_changed", lose)
        scheduler._shown = 0.0
        assert scheduler.run() is ExitCode.CONFIG
        assert scheduler.storage_lost
        assert [group.heard for group in ranks.groups] == [[signal.SIGTERM]] * 2
        monkeypatch.undo()


def test_a_fork_server_that_dies_again_and_again_ends_the_sweep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(group: StubRanks) -> None:
        raise ForkServerDied

    monkeypatch.setattr("phalanx.launch.sweep.process_watcher.ForkServer", lambda signals: StubForkServer(gone))
    monkeypatch.setattr(StubRanks, "port", SimpleNamespace(close=lambda: None), raising=False)
    with scheduling(tmp_path, gone) as (scheduler, queue, _):
        scheduler._asked = -1e9
        with pytest.raises(RuntimeError, match="died 4 times"):
            scheduler.run()
        assert set(states(queue).values()) <= {"running"}


def _work(folder: Path, points: int) -> None:
    """A start of the sweep, whose trials are trained at once."""
    with start(folder, config=settings(), space=_space(points)) as queue:

        def act(group: StubRanks) -> None:
            finish(queue, group, float(group.run))

        slots = [Slot(number, (), 1) for number in range(3)]
        scheduler_of(queue, slots, StubForkServer(act), StubSignals(), 60.0).run()


def _space(points: int) -> SearchSpace:
    return parse_space((f"optim.lr=range(1,{points + 1})",), lambda group: ())


def _killed(folder: Path, points: int, seconds: float | None = None, write: int | None = None) -> bool:
    """Whether a start was killed before its end, after so many seconds or at so many writes to its journal."""
    pid = os.fork()
    if not pid:
        code = 1
        try:
            if write is not None:
                _die_at(write)
            _work(folder, points)
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    pidfd = os.pidfd_open(pid)
    if not select.select([pidfd], [], [], seconds)[0]:
        os.kill(pid, signal.SIGKILL)
    os.close(pidfd)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert code in (0, -signal.SIGKILL)
    return code != 0


def _die_at(write: int) -> None:
    append, left = JournalFileBackend.append_logs, iter(range(write))

    def appended(self: JournalFileBackend, logs: list[dict[str, Any]]) -> None:
        if next(left, None) is None:
            os.kill(os.getpid(), signal.SIGKILL)
        append(self, logs)

    JournalFileBackend.append_logs = appended  # type: ignore[method-assign]


def _check(folder: Path, points: int) -> None:
    _work(folder, points)
    with start(folder, config=settings(), space=_space(points)) as queue:
        assert states(queue) == dict.fromkeys(range(points), "complete")
        assert [trial.value for trial in queue.search.trials()] == [float(number) for number in range(points)]


def test_whichever_write_a_sweep_is_killed_before_each_trial_ends_complete_with_its_own_score(tmp_path: Path) -> None:
    """Nothing prunes here, so nothing is pruned."""
    for write in itertools.count(6):  # before, there is no trial
        if not _killed(tmp_path / f"{write}", 2, write=write):
            assert write > 20
            return
        _check(tmp_path / f"{write}", 2)


@pytest.mark.slow
def test_whenever_a_sweep_is_killed_each_trial_ends_complete_with_its_own_score(tmp_path: Path) -> None:
    chance = random.Random(1)
    folder, points, killed = tmp_path / "0", 24, 0
    while killed < 400:
        if not _killed(folder, points, seconds=chance.uniform(0.02, 0.4)):
            _check(folder, points)
            folder = tmp_path / str(killed + 1)
        killed += 1
    _check(folder, points)

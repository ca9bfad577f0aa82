"""A stop request that reaches any rank: all ranks save and leave after the same step, and the same command continues."""

import json
import os
import signal
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import pytest

from phalanx.exit.signals import TWICE_S, grace_s_of
from phalanx.launch.host.processes import children
from tests.compare_runs import same
from tests.paced_task import TASK as PACED
from tests.paced_task import Pace
from tests.ranks import Results, Starter, World, until
from tests.stoppable_run import RUN, until_saved
from tests.train.distributed.conftest import Launch
from tests.train.distributed.fault_injection import TASK, Sabotage

SHORT_STEPS = 75
SHORT = (
    PACED,
    f"train.steps={SHORT_STEPS}",
    "eval.every=20",
    "checkpoint.every=9",
)  # for what is held up until it was told
_GRANT = "TORCH_ELASTIC_SHUTDOWN_TIMEOUT"


def stopped(starter: Starter, world: World, code: int, name: str) -> int:
    """Hold all ranks to one code and one checkpoint; returns its step."""
    ended = world.wait()
    assert ended.codes == [code] * len(world.pids), ended.output
    assert "Traceback" not in ended.output
    results = starter.results(name)
    *_, checkpoint, last = results.events()
    assert last["event"] == ("preempt" if code == 3 else "stop")
    assert (checkpoint["event"], checkpoint["step"]) == ("checkpoint", last["step"])
    assert (results.folder / f"checkpoints/step_{last['step']:08d}/manifest.json").exists()
    assert f"stopped after step {last['step']} and saved; the same command continues" in ended.output
    return int(last["step"])


@pytest.mark.parametrize(
    ("ranks", "heard"),
    [
        (1, [(signal.SIGINT, 7)]),
        (2, [(signal.SIGHUP, 3), (signal.SIGTERM, 3)]),
        (3, [(signal.SIGTERM, 3), (signal.SIGUSR2, 3), (signal.SIGINT, 7)]),
    ],
    ids=["1", "2", "3"],
)
def test_stopped_run_continues_bit_for_bit_whichever_rank_hears_whichever_signal(
    starter: Starter, ranks: int, heard: Sequence[tuple[signal.Signals, int]]
) -> None:
    run, opened = (*RUN, *SHORT), Pace(after=0, gate=str(starter.folder)).environ()
    undisturbed = starter.train(ranks, *run, name="undisturbed", environ=opened)
    results = starter.results("stopped")
    last = 0
    for turn, (number, code) in enumerate(heard):
        rank = turn % ranks
        pace = Pace(after=12, gate=str(starter.folder / f"gate-{turn}"))
        world = starter.start(ranks, *run, "run.name=stopped", environ=pace.environ())
        until_saved(results, start=turn + 1)
        began, soon_s = time.monotonic(), world.soon_s()
        world.kill(rank, with_signal=number)
        pace.open()
        step = stopped(starter, world, code, "stopped")
        assert time.monotonic() - began < soon_s
        assert last < step < SHORT_STEPS
        last = step
        assert number.name in results.events()[-1]["why"]
        assert f"rank {rank}" in results.events()[-1]["why"]
    same(undisturbed, starter.train(ranks, *run, name="stopped", environ=opened))


def being_built(starter: Starter, ranks: int) -> World:
    """Rank 1 takes its time for it; why the start ends is left in the file `cause`."""
    mark = starter.folder / "mark"
    sabotage = Sabotage(1, "build", "sleep", 0, str(mark))
    environ = {**sabotage.environ(), "PHALANX_CAUSE_FILE": str(starter.folder / "cause")}
    world = starter.start(ranks, *RUN, TASK, "run.name=r", environ=environ)
    until(mark.exists)
    return world


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR2, signal.SIGHUP])
def test_signal_that_comes_while_the_ranks_are_being_built_ends_them_at_once(
    starter: Starter, number: signal.Signals
) -> None:
    """A model may take minutes to load, a preemption does not wait for that, and nothing is lost yet."""
    world = being_built(starter, 2)
    began, soon_s = time.monotonic(), world.soon_s()
    world.kill(1, with_signal=number)
    ended = world.wait()
    assert time.monotonic() - began < soon_s
    assert ended.codes == [3, 3], ended.output
    assert ended.output.count("before training began; the same command begins again") == 1, ended.output
    cause = json.loads((starter.folder / "cause").read_text())
    assert (cause["code"], cause["rank"]) == (3, 1)
    assert f"{number.name} reached rank 1" in cause["message"]


def test_rank_that_dies_while_the_others_are_being_built_is_the_cause_and_they_leave(starter: Starter) -> None:
    """Nothing but the launcher's SIGTERM tells them: they wait for no rank."""
    world = being_built(starter, 3)
    began, soon_s = time.monotonic(), world.soon_s()
    world.kill(2)
    world.kill(1, with_signal=signal.SIGTERM)
    ended = world.wait()
    assert time.monotonic() - began < soon_s
    assert ended.codes == [1, 1, -signal.SIGKILL], ended.output
    cause = json.loads((starter.folder / "cause").read_text())
    assert cause["code"] == 1
    assert "rank 2 on " in cause["message"]


def test_signal_that_all_ranks_hear_twice_at_once_is_one_request(starter: Starter) -> None:
    """A terminal tells every process of its group, and a launcher passes on what it heard itself."""
    world = starter.start(2, *RUN, "run.name=r")
    until_saved(starter.results("r"))
    for _ in range(2):
        world.kill(with_signal=signal.SIGINT)
    stopped(starter, world, 7, "r")


def test_second_interrupt_leaves_at_once_without_saving(starter: Starter) -> None:
    """Rank 1 never comes to its next step, so there is nothing to agree on."""
    mark = starter.folder / "mark"
    sabotage = Sabotage(1, "step", "sleep", 60, str(mark))
    world = starter.start(2, *RUN, TASK, "run.name=r", environ=sabotage.environ())
    until(mark.exists)
    world.kill(0, with_signal=signal.SIGINT)
    until(lambda: time.time() - mark.stat().st_mtime > 1.5)
    began, soon_s = time.monotonic(), world.soon_s()
    world.kill(0, with_signal=signal.SIGINT)
    ended = world.wait()
    assert time.monotonic() - began < 2 * soon_s
    assert ended.codes == [7, 7], ended.output
    assert starter.results("r").events()[-1]["event"] == "error"
    assert ended.output.count("interrupted; the same command continues from the newest checkpoint") == 1


def test_second_interrupt_of_one_rank_whose_sinks_close_slowly_is_not_the_others_crash(starter: Starter) -> None:
    """As by phalanx cancel: all is saved, the others wait for rank 0, and W&B does not come to its end."""
    results, pace = starter.results("r"), Pace(after=12, gate=str(starter.folder / "gate"))
    world = starter.start(2, *RUN, *SHORT, "wandb.mode=offline", "run.name=r", environ=pace.environ())
    until_saved(results)
    [bystander] = [
        pid for pid in children(world.pids[0]) if "wandb_recorder" in Path(f"/proc/{pid}/cmdline").read_text()
    ]
    os.kill(bystander, signal.SIGSTOP)
    world.kill(0, with_signal=signal.SIGINT)
    told = time.monotonic()
    pace.open()
    until(lambda: results.events()[-1]["event"] == "stop" and time.monotonic() - told > 1.1 * TWICE_S)
    world.kill(0, with_signal=signal.SIGINT)
    ended = world.wait()
    os.kill(bystander, signal.SIGKILL)
    assert ended.codes == [7, 7], ended.output
    assert "Traceback" not in ended.output
    assert ended.output.count("interrupted; the same command continues from the newest checkpoint") == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR2])
def test_signal_that_comes_once_more_after_the_save_changes_nothing(starter: Starter, number: signal.Signals) -> None:
    """Launchers pass signals on when they please, and end the others as soon as the first has left."""
    results = starter.results("r")
    world = starter.start(2, *RUN, "run.name=r")
    until_saved(results)
    world.kill(0, with_signal=number)
    until(lambda: results.events()[-1]["event"] == "preempt")
    for rank in range(2):
        with suppress(ProcessLookupError):
            world.kill(rank, with_signal=number)
    stopped(starter, world, 3, "r")


def test_second_interrupt_ends_a_rank_that_is_stuck_in_a_wait_of_the_systems(starter: Starter) -> None:
    """Where the interpreter runs no handler: it waits for a lock that another thread holds."""
    mark = starter.folder / "mark"
    world = starter.start(1, *RUN, TASK, "run.name=r", environ=Sabotage(0, "step", "stuck", 30, str(mark)).environ())
    until(mark.exists)
    world.kill(with_signal=signal.SIGINT)
    until(lambda: time.time() - mark.stat().st_mtime > 1.5)
    world.kill(with_signal=signal.SIGINT)
    assert world.wait().codes == [7]
    assert time.time() - mark.stat().st_mtime < 25  # it is stuck for 30 s


def test_stop_file_stops_the_start_that_it_names_and_no_later_one(starter: Starter) -> None:
    results, pace = starter.results("r"), Pace(after=12, gate=str(starter.folder / "gate"))
    world = starter.start(2, *RUN, *SHORT, "run.name=r", environ=pace.environ())
    until_saved(results)
    (results.folder / "stop.json").write_text(json.dumps({"incarnation": 1}))
    pace.open()
    stopped(starter, world, 7, "r")
    assert "stop.json" in results.events()[-1]["why"]
    assert starter.run(2, *RUN, *SHORT, "run.name=r", environ=pace.environ()).codes == [0, 0]


def test_rank_that_waits_for_its_data_hears(starter: Starter) -> None:
    """It sleeps within a fetch that the others wait for, and the signal does not cut that short."""
    mark = starter.folder / "mark"
    world = starter.start(
        2,
        *RUN,
        "run.name=r",
        "data.train._target_=tests.train.distributed.fault_injection.Slow",
        environ={"SLOW_MARK": str(mark)},
    )
    until(mark.exists)
    world.kill(1, with_signal=signal.SIGTERM)
    stopped(starter, world, 3, "r")
    assert starter.results("r").events()[-1]["took_s"] > 0.5


def test_dead_rank_stays_the_cause_although_the_launcher_then_tells_the_others_to_stop(starter: Starter) -> None:
    """A launcher's SIGTERM follows the death of a rank within hundredths of a second."""
    environ = {"PHALANX_CAUSE_FILE": str(starter.folder / "cause")}
    for turn in range(3):
        world = starter.start(3, *RUN, "run.name=r", environ=environ)
        until_saved(starter.results("r"), start=turn + 1)
        world.kill(2)
        world.kill(0, 1, with_signal=signal.SIGTERM)
        ended = world.wait()
        assert ended.codes == [1, 1, -signal.SIGKILL], ended.output
        assert ended.output.count("rank 2 on ") == 1
        assert "is gone: it was killed" in ended.output
        cause = json.loads((starter.folder / "cause").read_text())
        assert cause["code"] == 1
        assert "rank 2 on " in cause["message"]


def test_under_the_real_launcher_the_cause_is_left_beside_its_own_code(launch: Launch, tmp_path: Path) -> None:
    cause = tmp_path / "cause"
    process = launch(2, *RUN, "run.name=r", environ={"PHALANX_CAUSE_FILE": str(cause)}, options=())
    until_saved(Results(tmp_path / "r"))
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=60)
    assert process.returncode != 0
    assert json.loads(cause.read_text())["code"] == 3
    assert output.count("and saved; the same command continues") == 1, output


@pytest.mark.parametrize(
    ("overrides", "code", "words"),
    [((), 0, "finished"), (("optim.lr=fast",), 2, "optim.lr"), (("run.root=/proc",), 2, "/proc")],
)
def test_launcher_learns_how_a_start_ended(starter: Starter, overrides: tuple[str, ...], code: int, words: str) -> None:
    cause = starter.folder / "cause"
    short = ("model=mlp", "train.steps=3", "run.name=r")
    ended = starter.run(2, *short, *overrides, environ={"PHALANX_CAUSE_FILE": str(cause)})
    assert ended.codes == [code, code]
    found = json.loads(cause.read_text())
    assert (found["code"], found["rank"]) == (code, 0)
    assert words in found["message"]


@pytest.mark.parametrize(
    ("said", "granted"), [({}, 30), ({_GRANT: "120"}, 120), ({_GRANT: ""}, 30), ({_GRANT: "x"}, 30)]
)
def test_launcher_says_how_long_it_lets_a_stop_take(said: dict[str, str], granted: float) -> None:
    assert grace_s_of(said) == granted


def test_save_that_takes_longer_than_a_stop_may_is_warned_about(starter: Starter) -> None:
    world = starter.start(2, *RUN, "run.name=r", "stop.grace_s=0.001")
    until_saved(starter.results("r"))
    world.kill(0, with_signal=signal.SIGTERM)
    ended = world.wait()
    assert ended.codes == [3, 3]
    assert "WARNING: saving took " in ended.output
    assert "Grant more and type stop.grace_s=" in ended.output


def test_hangup_that_nohup_turned_off_is_no_stop_request(starter: Starter) -> None:
    results = starter.results("r")
    (starter.folder / "mine.py").write_text("import signal\nsignal.signal(signal.SIGHUP, signal.SIG_IGN)\n" + _CLASS)
    pace = Pace(after=12, gate=str(starter.folder / "gate"))
    environ = {"PYTHONPATH": str(starter.folder), **pace.environ()}
    run = (*RUN, *SHORT, "train.steps=30", "task._target_=mine.Quiet")
    world = starter.start(1, *run, "run.name=r", environ=environ)
    until_saved(results)
    os.kill(world.pids[0], signal.SIGHUP)
    pace.open()
    assert world.wait().codes == [0]


_CLASS = """
from tests.paced_task import Paced

class Quiet(Paced):
    pass
"""

"""Ranks hear what `phalanx run` hears, have time to save, and nothing is left running, whoever is killed."""

import os
import signal

import pytest

from tests.launch.command import Launcher, marked
from tests.ranks import ROOT, SMALL, until

LISTENS = "tell('heard', hear())\nsys.exit(7)"
HEARS_FOUR = """
tell("heard0", hear())
for number in range(1, 4): tell(f"heard{number}", signal.sigwait(signals).name)
tell("pending", str(signal.sigpending()))
while not (here / f"pending-{1 - rank}").exists(): threading.Event().wait(0.001)  # torchrun tells the other when one leaves
sys.exit(7)
"""
HEARS_TWO = "hear()\ntell('again')\nsignal.sigwait(signals)\ntell('twice')\nwait()"
DEAF = "signal.pthread_sigmask(signal.SIG_BLOCK, signals)\nwait()"


def test_every_rank_hears_each_signal_once_and_leaves_by_itself(launcher: Launcher) -> None:
    """Also when a terminal sends it to all that runs in it. One that is gone they hear of as SIGTERM."""
    started = launcher.start("run", "-n", "2", body=HEARS_FOUR)
    started.ready(2)
    for number, sent in enumerate((signal.SIGUSR2, signal.SIGTERM, signal.SIGHUP, signal.SIGINT)):
        os.killpg(started.process.pid, sent)
        for rank in range(2):
            until((started.here / f"heard{number}-{rank}").exists)
    assert started.wait() == (7, "")
    start, *answers, last = started.answers
    assert start == "phalanx: starting 2 ranks"
    assert [answer.split(":")[1] for answer in answers] == [" SIGUSR2", " SIGTERM", " SIGTERM"]
    assert last.endswith("within 120 s; Ctrl-C once more ends it at once")
    for rank in range(2):
        heard = [started.told(f"heard{number}", rank) for number in range(4)]
        assert heard == ["SIGUSR2", "SIGTERM", "SIGTERM", "SIGINT"]
        assert started.told("pending", rank) == "set()"


def test_a_second_interrupt_is_at_once(launcher: Launcher) -> None:
    """Ranks hear it, too, and what stays is killed long before the grace is over."""
    started = launcher.start("run", body=HEARS_TWO)
    started.ready(1)
    started.process.send_signal(signal.SIGINT)
    until(lambda: (started.here / "again-0").exists())
    started.process.send_signal(signal.SIGINT)
    code, output = started.wait()
    assert (started.here / "twice-0").exists()
    assert code == 1
    assert output == "phalanx: ended at once; the same command continues from the newest checkpoint\n"


def test_ranks_that_do_not_leave_in_time_are_killed(launcher: Launcher) -> None:
    started = launcher.start("run", "-n", "2", "--grace", "1", body=DEAF)
    started.ready(2)
    started.process.terminate()
    code, output = started.wait()
    assert code == 1
    assert output.startswith("phalanx: the ranks had not left 1 s after SIGTERM")
    assert not marked(launcher.mark)


@pytest.mark.parametrize(
    ("sent", "code"), [(signal.SIGTERM, 3), (signal.SIGUSR2, 3), (signal.SIGHUP, 3), (signal.SIGINT, 7)]
)
def test_a_signal_before_there_are_ranks_ends_the_start_as_one_that_has_saved(
    launcher: Launcher, sent: signal.Signals, code: int
) -> None:
    started = launcher.start("run", body="wait()")
    until(lambda: len(marked(launcher.mark)) == 2)
    started.process.send_signal(sent)
    assert started.wait() == (code, "phalanx: told to leave before training began; the same command begins again\n")
    assert not marked(launcher.mark)


def test_an_interrupt_before_training_is_a_stop(launcher: Launcher) -> None:
    """Real ranks have a handler of Python's from their first moment on, and users' code that builds gets to tidy up."""
    (launcher.folder / "slowly.py").write_text(_SLOWLY)
    environ = {"PYTHONPATH": f"{ROOT}:{launcher.folder}", "HERE": str(launcher.folder)}
    started = launcher.start(
        "run", *SMALL, "model._target_=slowly.Net", "~model.classes", "~model.dropout", environ=environ
    )
    until((launcher.folder / "built").exists)
    started.process.send_signal(signal.SIGINT)
    code, output = started.wait()
    assert code == 7, output
    assert (launcher.folder / "tidied").exists()


_SLOWLY = """
import os, pathlib, threading
from torch import nn
here = pathlib.Path(os.environ["HERE"])
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        (here / "built").touch()
        try:
            threading.Event().wait()
        finally:
            (here / "tidied").touch()
"""


def test_ranks_of_a_killed_launcher_are_told_to_stop(launcher: Launcher) -> None:
    started = launcher.start("run", "-n", "2", body=LISTENS)
    started.ready(2)
    started.process.kill()
    until(lambda: not marked(launcher.mark))
    assert [started.told("heard", rank) for rank in range(2)] == ["SIGTERM", "SIGTERM"]


def test_deaf_ranks_of_a_killed_launcher_are_killed(launcher: Launcher) -> None:
    started = launcher.start("run", "-n", "2", "--grace", "1", body=DEAF)
    started.ready(2)
    started.process.kill()
    until(lambda: not marked(launcher.mark))


def test_ranks_of_a_killed_agent_are_ended(launcher: Launcher) -> None:
    """With all that they started themselves."""
    started = launcher.start("run", "-n", "2", body="import subprocess\nsubprocess.Popen(['sleep', '1000'])\nwait()")
    started.ready(2)
    os.kill(started.agent, signal.SIGKILL)
    assert started.wait() == (1, "phalanx: the agent of the ranks was killed by SIGKILL\n")
    assert not marked(launcher.mark)


def test_processes_of_the_callers_own_are_left_alone(launcher: Launcher) -> None:
    """As of a container's entry script, which became `phalanx` after it had started something beside it."""
    started = launcher.start(
        "run", body="sys.exit(7)", within='sleep 1000 > /dev/null 2>&1 & echo $! > beside; exec "$@"'
    )
    assert started.wait() == (7, "")
    beside = int((started.here / "beside").read_text())
    assert marked(launcher.mark) == [beside]
    os.kill(beside, signal.SIGKILL)
    until(lambda: not marked(launcher.mark))  # what is killed has not ended yet


def test_a_signal_that_is_ignored_stays_ignored(launcher: Launcher) -> None:
    """As under nohup: the terminal may close."""
    started = launcher.start("run", body="tell('heard', hear())\nsys.exit(4)", within='trap "" HUP; exec "$@"')
    started.ready(1)
    started.process.send_signal(signal.SIGHUP)
    started.process.send_signal(signal.SIGUSR2)
    assert started.wait() == (4, "")
    assert started.told("heard", 0) == "SIGUSR2"

"""Another cluster than Slurm is one class: the verbs work with it as they are."""

import json
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner

from phalanx.exit.codes import ConfigError, ExitCode
from phalanx.launch.commands import backend
from phalanx.launch.commands.cancel import cancel
from phalanx.launch.commands.logs import logs
from phalanx.launch.commands.status import status
from phalanx.launch.commands.submit import submit
from phalanx.launch.slurm.backend import Slurm
from phalanx.launch.submission.exit_policy import EXIT_POLICY
from phalanx.run_folder.jsonl import Entry
from tests.launch.submission.script_backend import ScriptBackend
from tests.ranks import SMALL, Nursery, until
from tests.train.distributed.fault_injection import TASK, Sabotage

TINY = ("model=mlp", "model.hidden=[8]", "train.steps=3", "cluster.ranks_per_node=1", *SMALL)


@pytest.fixture
def scripts(nursery: Nursery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ScriptBackend:
    return used(ScriptBackend(tmp_path / "jobs", nursery), tmp_path, monkeypatch)


def used(made: ScriptBackend, here: Path, monkeypatch: pytest.MonkeyPatch) -> ScriptBackend:
    """A backend that verbs choose which are typed `here`."""
    made.folder.mkdir()
    monkeypatch.setattr(backend, "choose_backend", lambda cluster, environ: made)
    monkeypatch.setattr(
        backend, "backend_named", lambda name, environ: made if name == "Script" else Slurm({"PATH": ""})
    )
    monkeypatch.chdir(here)
    return made


def typed(command: object, *words: str) -> tuple[int, str]:
    """The exit code of a verb and what it printed, or its one message."""
    done = CliRunner().invoke(command, list(words))  # type: ignore[arg-type]
    if isinstance(done.exception, ConfigError):
        return ExitCode.CONFIG, str(done.exception)
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exc_info
    return done.exit_code, done.output


def told() -> dict[str, Entry]:
    """What `phalanx status` says of each run."""
    found = [json.loads(line) for line in typed(status, "--json")[1].splitlines()]
    return {Path(entry["run"]).name: entry for entry in found}


def test_what_a_dry_run_prints_is_what_is_submitted(scripts: ScriptBackend) -> None:
    code, printed = typed(submit, "--dry-run", *TINY, "run.name=r")
    assert (code, list(scripts.folder.iterdir()), Path("runs").exists()) == (0, [], False)
    code, output = typed(submit, *TINY, "run.name=r")
    assert (code, output.split()[:2]) == (0, ["job", "1"])
    assert (scripts.folder / "1.sh").read_text() + "\n" == printed
    assert typed(submit, "--test-only", *TINY, "run.name=other") == (0, "other starts when somebody waits for it\n")
    assert typed(submit, *TINY, "run.name=other", "cluster.partition=x")[1].startswith(
        "cluster.partition=x: a folder has"
    )
    assert typed(submit, *TINY, "run.name=other", "--after=7") == (2, "--after=7: there is no such job")


def test_a_cluster_is_asked_for_what_was_submitted_to_it_alone(scripts: ScriptBackend) -> None:
    """Ids of jobs are numbers, and the other cluster has such jobs, too. What names no cluster was submitted to Slurm."""
    for name in ("here", "before"):
        assert typed(submit, *TINY, f"run.name={name}")[0] == 0
    record = Path("runs/.submitted/before-1/submission.json")
    written = json.loads(record.read_text())
    assert written.pop("backend") == "Script"
    record.write_text(json.dumps(written))
    assert {name: each["state"] for name, each in told().items()} == {"here": "queued", "before": "submitted"}
    assert "neither running nor queued" in typed(cancel, "before")[1]
    assert len(scripts.query() or []) == 2


def test_a_record_of_a_cluster_that_nobody_knows_is_one_message() -> None:
    with pytest.raises(ConfigError, match="submitted to Cloud, which this version of Phalanx does not know"):
        backend.backend_named("Cloud", {})


def test_waiting_for_a_run_trains_it_and_returns_its_exit_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a Python that its script starts."""
    used(ScriptBackend(tmp_path / "jobs"), tmp_path, monkeypatch)
    assert typed(submit, "--wait", *TINY, "run.name=r")[0] == 0
    assert (told()["r"]["state"], told()["r"]["step"]) == ("finished", 3)
    assert typed(submit, "--wait", *TINY, "run.name=bad", "cluster.setup=['exit 4']")[0] == ExitCode.GAVE_UP
    found = told()["bad"]
    assert (found["state"], found["why"].partition(", see ")[0]) == ("failed", "its job has ended")
    assert found["why"].endswith("/2.log")


def test_what_follows_from_an_exit_code_is_the_same_on_every_cluster(scripts: ScriptBackend) -> None:
    assert set(EXIT_POLICY) == set(ExitCode), "a new exit code says what follows from it"
    again = "cluster.setup=['[[ -e went ]] && exit 7','touch went','exit 3']"
    assert typed(submit, "--wait", *TINY, again)[0] == ExitCode.STOPPED
    assert scripts.starts("1") == [3, 7]
    assert typed(submit, "--wait", *TINY, "cluster.setup=['exit 3']", "cluster.max_requeues=2")[0] == ExitCode.PREEMPTED
    assert scripts.starts("2") == [3, 3, 3]


def test_each_element_of_an_array_is_queued_cancelled_and_waited_for_by_itself(scripts: ScriptBackend) -> None:
    words = (*TINY, "--array=0-2", "seed=%a", "run.name=r-%a", "cluster.setup=['[[ $element == 0 ]] || exit 2']")
    code, output = typed(submit, *words)
    assert (code, "and 2 more" in output) == (0, True)
    assert {name: (entry["state"], entry["job"], entry["why"]) for name, entry in told().items()} == {
        f"r-{index}": ("queued", f"1_{index}", "nobody waits") for index in range(3)
    }
    assert "is job 1_0 already (written)" in typed(submit, *words)[1]
    assert typed(cancel, "r-1") == (0, "asked Script to end job 1_1, which was written\n")
    scripts.cancel("1_2")  # by the cluster's own program, as scancel is
    assert scripts.wait("1", ["0"]) == 0
    found = told()
    assert found["r-0"]["state"] == "finished"
    for index in (1, 2):
        assert (found[f"r-{index}"]["state"], found[f"r-{index}"]["why"]) == ("stopped", "its job was cancelled")
    assert "neither running nor queued: it is new" in typed(cancel, "r-1")[1]
    assert typed(logs, "r-2")[1].startswith("--rank=0: r-2 has no rank_0.log")
    assert typed(submit, "--wait", *words)[0] == ExitCode.CONFIG, "of what is queued anew the highest code counts"


STOPS = (*TINY, TASK, "train.steps=60", "checkpoint.every=4", "run.name=r")
LONG = ("train.steps=800", "checkpoint.every=100")  # to have steps left when all ranks know that they have to leave
ONCE = (
    "cluster.setup=['[[ $restarts == 0 ]] || unset SABOTAGE']"  # a start of the job after the first goes on undisturbed
)


@contextmanager
def waited_for(scripts: ScriptBackend, codes: list[int]) -> Iterator[None]:
    """Job 1 runs meanwhile; its exit code goes into `codes`."""
    waits = threading.Thread(target=lambda: codes.append(scripts.wait("1", [""])))
    waits.start()
    try:
        yield
    except BaseException:
        scripts.cancel("1")
        raise
    finally:
        waits.join()


@pytest.fixture
def stopped(scripts: ScriptBackend, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> ScriptBackend:
    """Submitted is job 1, whose first start will be stopped by SIGSTOP in step 6."""
    words = getattr(request, "param", ())
    for name, value in Sabotage(0, "step", "stop", 6).environ().items():
        monkeypatch.setenv(name, value)
    assert typed(submit, *STOPS, *words, ONCE)[0] == 0
    return scripts


def test_a_job_that_runs_is_shown_and_ended_as_the_clusters(stopped: ScriptBackend) -> None:
    """It is left to the cluster to end it: on most its process is on another machine."""
    codes: list[int] = []
    with waited_for(stopped, codes):
        until(lambda: stopped.stands_still("1"))
        assert (told()["r"]["state"], told()["r"]["job"]) == ("running", "1")
        assert typed(logs, "r")[0] == 0
        assert "is job 1 already (running)" in typed(submit, *STOPS, ONCE)[1]
        assert typed(cancel, "r") == (0, "asked Script to end job 1, which was running\n")
    assert codes == [ExitCode.BUG]
    assert (told()["r"]["state"], told()["r"]["why"]) == ("stopped", "its job was cancelled")


def test_a_job_that_the_cluster_begins_again_takes_its_run_over_from_the_start_before(stopped: ScriptBackend) -> None:
    """Which it took for dead; it stands still and will go on."""
    first = stopped.start("1")
    until(lambda: stopped.stands_still("1"))
    again = stopped.start("1")
    assert again.wait() == ExitCode.FINISHED, (Path("runs/.submitted/r-1") / "1.log").read_text()
    os.killpg(first.pid, signal.SIGCONT)
    assert first.wait() == ExitCode.CONFIG
    assert "has taken over" in (Path("runs/.submitted/r-1") / "1.log").read_text()
    assert (told()["r"]["state"], told()["r"]["step"]) == ("finished", 60)


@pytest.mark.parametrize("stopped", [LONG], indirect=True, ids=["long"])
def test_a_job_that_is_told_to_leave_is_requeued_and_goes_on(stopped: ScriptBackend) -> None:
    codes: list[int] = []
    with waited_for(stopped, codes):
        until(lambda: stopped.stands_still("1"))
        (pid,) = map(int, (stopped.folder / "1.pids").read_text().split())
        os.kill(pid, signal.SIGTERM)
        os.kill(pid, signal.SIGCONT)
    assert (codes, stopped.starts("1")) == ([0], [ExitCode.PREEMPTED, ExitCode.FINISHED])
    assert (told()["r"]["state"], told()["r"]["step"]) == ("finished", 800)
    events = [json.loads(line) for line in (Path("runs/r") / "events.jsonl").read_text().splitlines()]
    (resumed,) = [event["step"] for event in events if event["event"] == "resume"]
    assert 6 <= resumed < 800

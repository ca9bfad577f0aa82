"""A sweep trains every point once as a whole run of its own, whatever happens meanwhile."""

import html
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from launch.processes import children
from tests.launch.test_report import document
from tests.pacer import TASK, Pace
from tests.ranks import QUIET, ROOT, Results, Starter, holder, until
from tests.sweep.sweeper import SHORT, Sweeper, interrupt, warm_of
from tests.world.saboteur import TASK as SABOTAGED
from tests.world.saboteur import Sabotage
from train.compose import compose
from train.identity import digest
from train.listening import beyond_loopback, listened

GRID = (*SHORT, "optim.lr=1e-3,1e-2", "model.hidden=[8],[16]", "sweep.ranks=2")


def test_every_point_of_a_grid_is_a_run_with_the_weights_of_one_that_was_started_alone(
    sweeper: Sweeper, starter: Starter
) -> None:
    found = sweeper.finish(*GRID)
    assert [row["words"] for row in found["rows"]] == [
        ["optim.lr=0.001", "model.hidden=[8]"],
        ["optim.lr=0.001", "model.hidden=[16]"],
        ["optim.lr=0.01", "model.hidden=[8]"],
        ["optim.lr=0.01", "model.hidden=[16]"],
    ]
    assert sweeper.states() == ["complete"] * 4
    assert all(sweeper.results(trial).summary["world_sizes"] == [2] for trial in range(4))
    assert "  group: s\n" in (sweeper.results(0).folder / "resolved.yaml").read_text(), "W&B shows them together"
    alone = starter.train(2, *SHORT, "optim.lr=0.01", "model.hidden=[8]", name="alone")
    assert sweeper.results(2).sha256 == alone.sha256
    best = max(found["rows"], key=lambda row: float(row["value"]))
    assert found["best"] == best
    assert best["value"] == sweeper.results(best["trial"]).summary["eval"]["accuracy"]


def test_the_same_command_again_trains_nothing_twice_and_names_the_best(sweeper: Sweeper) -> None:
    words = (*SHORT, "optim.lr=1e-3,1e-2")
    sweeper.finish(*words)
    before = sweeper.starts()
    code, output, _ = sweeper.run(*words)
    assert (code, sweeper.starts()) == (0, before)
    command = output.splitlines()[-1]
    assert command.startswith("phalanx run -n 1 ")
    assert "optim.lr=0.01" in command
    assert sweeper.phalanx("sweep", "--best", "s").stdout == command + "\n"


def test_best_point_can_be_written_out_as_an_experiment_and_trains_the_same_weights(
    sweeper: Sweeper, starter: Starter
) -> None:
    words = (*SHORT, "optim.lr=1e-3,1e-2", "optim=adamw", "train.threads=auto", "model.hidden=[8],[16]")
    found = sweeper.finish(*words, environ={"OMP_NUM_THREADS": "2"})
    assert "train.threads=2" in sweeper.phalanx("sweep", "--best", "s").stdout, "what weights depend on is no secret"
    file = sweeper.folder / "conf/experiment/mine.yaml"
    file.parent.mkdir(parents=True)
    assert sweeper.phalanx("sweep", "--best", "s", "--save", str(file)).returncode == 0
    mine = (f"--config-dir={file.parents[1]}", "experiment=mine")
    again = compose(mine).config
    assert again.train.threads == 2
    weights = starter.train(1, *mine, "train.threads=2", name="mine").sha256
    assert weights == sweeper.results(found["best"]["trial"]).sha256
    was = compose([*SHORT, "optim=adamw", *found["best"]["words"]]).config
    assert digest(again) == digest(was)
    assert again.eval == was.eval
    assert f"accuracy {found['best']['value']:.5g}" in file.read_text()


def test_page_and_status_tell_what_is_best(sweeper: Sweeper) -> None:
    """In a real browser."""
    words = (*SHORT, "optim.lr=1e-3,3e-3,1e-2", "model.hidden=[8],[16]")
    found = sweeper.finish(*words)
    text = document(sweeper.sweep / "report.html", sweeper.folder)
    assert html.escape(found["best"]["words"][1]) in text
    assert text.count('class="main-svg"') >= 3, "slices, parallel coordinates, learning curves"
    assert re.search(r"<td><code>optim.lr</code></td><td[^>]*>\d+%", text)
    assert "sweep.seeds=3 would" in text
    for folder, expected in (
        (sweeper.folder / "runs", rf"s +finished +6/6 .*best accuracy .*, trial {found['best']['trial']}"),
        (sweeper.sweep, "0005 +finished +8/8"),
    ):
        assert re.search(expected, sweeper.phalanx("status", "--root", str(folder)).stdout)


def test_hydras_own_option_leads_to_the_very_same_sweep(tmp_path: Path) -> None:
    words = (*SHORT, "train.steps=2", "train.threads=1", "wandb.mode=disabled", "optim.lr=1e-3,1e-2", "run.root=runs")
    phalanx = [sys.executable, "-m", "launch.cli", "sweep"]
    environ = {**os.environ, **QUIET, "PYTHONPATH": str(ROOT)}
    for command in ([sys.executable, str(ROOT / "train/main.py"), "-m"], phalanx):
        subprocess.run([*command, *words], cwd=tmp_path, env=environ, check=True, capture_output=True)
    (sweep,) = (tmp_path / "runs").iterdir()
    assert len(list(sweep.glob("*/summary.json"))) == 2


PACED = (*GRID, "train.steps=30", TASK)


def test_killed_sweep_leaves_no_rank_behind_and_goes_on_where_it_was(sweeper: Sweeper) -> None:
    pace = Pace(after=6, gate=str(sweeper.folder / "gate"))
    process = sweeper.start(*PACED, environ=pace.environ())
    until(lambda: sweeper.results(0).reached(4), 100.0)
    ranks = children(warm_of(process))
    assert len(ranks) >= 2
    process.kill()
    process.communicate()
    pace.open()
    until(lambda: not any(Path(f"/proc/{rank}/cmdline").exists() for rank in ranks))
    found = sweeper.finish(*PACED, environ=pace.environ())
    assert [row["state"] for row in found["rows"]] == ["complete"] * 4
    assert sweeper.starts() == {"0000": ["start", "resume"], **{name: ["start"] for name in ("0001", "0002", "0003")}}


def test_rank_of_the_next_trial_waits_while_others_train(sweeper: Sweeper) -> None:
    pace = Pace(after=6, gate=str(sweeper.folder / "gate"))
    process = sweeper.start(*SHORT, TASK, "optim.lr=1e-3,1e-2", "sweep.slots=1", environ=pace.environ())
    until(lambda: sweeper.results(0).reached(4) and len(children(warm_of(process))) == 2, 100.0)
    pace.open()
    process.communicate(timeout=100)
    assert sweeper.forked(1) < sweeper.results(0).events("finish")[0]["time"]


@pytest.mark.parametrize("victim", ["rank", "rank of the next trial", "warm process"])
def test_killed_processes_of_a_sweep_cost_nothing_but_time(sweeper: Sweeper, victim: str) -> None:
    pace = Pace(after=6, gate=str(sweeper.folder / "gate"))
    words = (*SHORT, "train.steps=30", "optim.lr=1e-3,1e-2", "sweep.ranks=2", TASK)
    process = sweeper.start(*words, environ=pace.environ())
    until(lambda: sweeper.results(0).reached(4), 100.0)
    warm = warm_of(process)
    until(lambda: len(children(warm)) == 4)
    ours = [process.pid, warm, *children(warm)]
    assert listened(ours)
    assert beyond_loopback(ours) == set()
    trains, waits = children(warm)[1], children(warm)[3]
    os.kill({"rank": trains, "rank of the next trial": waits, "warm process": warm}[victim], signal.SIGKILL)
    pace.open()
    output, errors = process.communicate(timeout=200)
    assert process.returncode == 0, output + errors
    assert sweeper.states() == ["complete"] * 2
    first = ["start"] if victim == "rank of the next trial" else ["start", "resume"]
    assert sweeper.starts() == {"0000": first, "0001": ["start"]}


@pytest.mark.parametrize("heard", [signal.SIGKILL, signal.SIGTERM])
def test_processes_share_a_sweep_and_one_takes_up_what_another_had_to_leave(
    sweeper: Sweeper, heard: signal.Signals
) -> None:
    pace = Pace(after=6, gate=str(sweeper.folder / "gate"))
    words = (*PACED, "sweep.slots=1")
    leaving, staying = (sweeper.start(*words, environ=pace.environ()) for _ in range(2))
    until(lambda: all(sweeper.results(trial).reached(4) for trial in (0, 1)), 100.0)
    assert re.search("s +running +0/4 .*2 at work", sweeper.phalanx("status").stdout)
    assert sweeper.phalanx("report", "s").stdout == "runs/s/report.html\n"
    assert re.search(r"running, \d of 4 trials", (sweeper.sweep / "report.html").read_text())
    warm = Path(f"/proc/{warm_of(leaving)}")
    leaving.send_signal(heard)
    until(lambda: heard is signal.SIGTERM or not warm.exists())
    pace.open()
    assert leaving.wait(100) == (3 if heard is signal.SIGTERM else -heard)
    output, errors = staying.communicate(timeout=200)
    leaving.communicate()
    assert staying.returncode == 0, output + errors
    assert sweeper.states() == ["complete"] * 4
    assert sweeper.found["state"] == "finished"
    assert sorted(sweeper.starts().values()) == [["start"], ["start"], ["start"], ["start", "resume"]]
    assert not list((sweeper.sweep / "workers").glob("*")) or heard is signal.SIGKILL


@pytest.mark.parametrize("by", ["Ctrl-C", "phalanx stop"])
def test_stopped_sweep_saves_what_is_under_way_and_the_same_command_goes_on(sweeper: Sweeper, by: str) -> None:
    pace = Pace(after=6, gate=str(sweeper.folder / "gate"))
    process = sweeper.start(*PACED, environ=pace.environ())
    until(lambda: sweeper.results(0).reached(4) and (sweeper.sweep / "sweep.json").exists(), 100.0)
    if by == "Ctrl-C":
        interrupt(process)
    else:
        assert sweeper.phalanx("stop", "s", "--no-wait").returncode == 0
    pace.open()
    output, errors = process.communicate(timeout=100)
    assert (process.returncode, errors) == (7, "")
    assert "stopped, all saved; the same command continues" in output
    assert sweeper.results(0).events()[-1]["event"] == "preempt"
    assert sweeper.found["state"] == "stopped"
    sweeper.finish(*PACED, environ=pace.environ())
    assert sweeper.states() == ["complete"] * 4


def test_cancelled_sweep_is_gone_at_once_and_the_same_command_goes_on(sweeper: Sweeper) -> None:
    pace = Pace(after=6, gate=str(sweeper.folder / "gate"))
    process = sweeper.start(*PACED, environ=pace.environ())
    until(lambda: sweeper.results(0).reached(4) and (sweeper.sweep / "sweep.json").exists(), 100.0)
    warm = warm_of(process)
    ranks = children(warm)
    assert sweeper.phalanx("cancel", "s").stdout == f"ended process {process.pid} on {socket.gethostname()}\n"
    assert process.wait(10) == 7
    process.communicate()
    until(lambda: not any(Path(f"/proc/{pid}/cmdline").exists() for pid in (warm, *ranks)))
    assert "neither running nor queued: it is stopped" in sweeper.phalanx("cancel", "s").stderr
    pace.open()
    sweeper.finish(*PACED, environ=pace.environ())
    assert sweeper.starts()["0000"] == ["start", "resume"]


def test_a_point_that_is_the_same_run_as_another_is_trained_once(sweeper: Sweeper) -> None:
    """What a run is called, or how many threads it has, does not change what it trains."""
    found = sweeper.finish(*SHORT, "data.workers=0,1", "optim.lr=1e-3,1e-2")
    assert sweeper.states() == ["complete"] * 4
    assert list(sweeper.starts()) == ["0000", "0001"]
    values = [row["value"] for row in found["rows"]]
    assert values[:2] == values[2:]


def test_a_trial_that_fails_is_on_record_and_the_others_go_on(sweeper: Sweeper) -> None:
    words = (*SHORT, "train.max_skips=2", "optim=sgd", "optim.lr=1e-2,1e30,1e-3")
    found = sweeper.finish(*words)
    assert sweeper.states() == ["complete", "failed", "complete"]
    assert "in a row" in found["rows"][1]["error"]
    assert found["best"]["trial"] in (0, 2)


def test_too_many_failures_end_the_sweep(sweeper: Sweeper) -> None:
    environ = Sabotage(0, "step", "memory", 2).environ()
    code, output, _ = sweeper.run(*SHORT, SABOTAGED, "optim.lr=1,2,3,4", "sweep.max_failures=1", environ=environ)
    assert code == 4
    assert "gave up: more than 1 trials failed (sweep.max_failures)" in output
    failed = [row for row in sweeper.found["rows"] if row["state"] == "failed"]
    assert len(failed) >= 2
    assert all("MemoryError" in row["error"] for row in failed)
    assert (sweeper.sweep / "journal.jsonl").read_text().count('"out_of_memory":true') == len(failed)
    assert not list(sweeper.sweep.glob("*/summary.json"))


def test_seeds_repeat_each_point_and_their_mean_ranks_it(sweeper: Sweeper) -> None:
    found = sweeper.finish(*SHORT, "optim.lr=1e-3,1e-2", "sweep.seeds=2", "seed=5")
    runs = sorted(path.parent.name for path in sweeper.sweep.glob("*/summary.json"))
    assert runs == ["0000-seed5", "0000-seed6", "0001-seed5", "0001-seed6"]
    for row in found["rows"]:
        values = [
            json.loads((sweeper.sweep / f"{row['trial']:04d}-seed{seed}/summary.json").read_text())["eval"]["accuracy"]
            for seed in (5, 6)
        ]
        assert row["by_seed"] == values
        assert (row["step"], row["steps"]) == (8, 8)
        assert row["value"] == pytest.approx(sum(values) / 2)


def test_run_with_one_seed_ends_when_another_has_failed(sweeper: Sweeper) -> None:
    """Killed three times, which is as often as a sweep begins it again."""
    pace = Pace(after=6, gate=str(sweeper.folder / "gate"))
    words = (*SHORT, TASK, "train.steps=40", "optim.lr=1e-3,1e-2", "sweep.seeds=2", "seed=5", "sweep.slots=2")
    process = sweeper.start(*words, environ=pace.environ())
    unlucky, other = (Results(sweeper.sweep / f"0000-seed{seed}") for seed in (5, 6))
    until(lambda: unlucky.reached(4) and other.reached(4), 100.0)
    for start in (1, 2, 3):
        until((unlucky.folder / "lease" / f"{start:08d}.json").exists, 100.0)
        os.kill(holder(unlucky.folder), signal.SIGKILL)
    until(lambda: sweeper.states()[0] == "failed")
    pace.open()
    output, errors = process.communicate(timeout=100)
    assert process.returncode == 0, output + errors
    assert "SIGKILL" in sweeper.found["rows"][0]["error"]
    assert other.events("preempt")
    assert not (other.folder / "summary.json").exists()


def test_seeds_may_be_what_is_swept(sweeper: Sweeper) -> None:
    sweeper.finish(*SHORT, "seed=range(0,3)")
    assert len({sweeper.results(trial).sha256 for trial in range(3)}) == 3


def test_halving_pauses_trials_at_a_rung_and_promotes_the_best_from_their_checkpoints(
    sweeper: Sweeper, starter: Starter
) -> None:
    words = ("model=mlp", "model.hidden=[16]", "train.steps=90", "eval.every=10", "log.every=10", "data.augment=null")
    space = ("optim.lr=choice(1e-5,1e-4,3e-3,1e-6,2e-5,1e-2,2e-6,1e-7,5e-5)", "sweep/pruner=asha")
    found = sweeper.finish(*words, *space)
    states = sweeper.states()
    assert len(states) == 9
    assert set(states) == {"complete", "pruned"}
    assert states[2] == "complete" or states[5] == "complete"
    steps = [max(line["step"] for line in sweeper.results(trial).metrics()) for trial in range(9)]
    assert sorted(steps) == [10, 10, 10, 10, 10, 10, 30, 30, 90]
    (done, *_) = [trial for trial in range(9) if states[trial] == "complete"]
    assert "resume" in [e for events in sweeper.starts().values() for e in events], "somebody was promoted"
    lr = found["rows"][done]["words"][0]
    assert sweeper.results(done).sha256 == starter.train(1, *words, lr, name="alone").sha256


def test_processes_that_share_a_halved_sweep_promote_what_another_paused(sweeper: Sweeper) -> None:
    """In a database, as they may."""
    words = ("model=mlp", "model.hidden=[16]", "train.steps=90", "eval.every=10", "log.every=10", "data.augment=null")
    storage = f"sweep.storage=sqlite:///{sweeper.folder}/sweep.db"
    space = ("optim.lr=choice(1e-5,1e-3,1e-2,1e-4)", "sweep/pruner=asha", "sweep.pruner.eta=2", "sweep.slots=1")
    crew = [sweeper.start(*words, *space, storage) for _ in range(2)]
    for process in crew:
        output, errors = process.communicate(timeout=100)
        assert process.returncode == 0, output + errors
    assert sorted(sweeper.states()) == ["complete", "pruned", "pruned", "pruned"]
    steps = [max(line["step"] for line in sweeper.results(trial).metrics()) for trial in range(4)]
    assert max(steps) == 90
    assert sweeper.found["state"] == "finished"


def test_median_pruner_ends_trials_that_fall_behind(sweeper: Sweeper) -> None:
    words = ("model=mlp", "model.hidden=[8]", "train.steps=400", "eval.every=10", "log.every=10", "data.augment=null")
    sweeper.finish(
        *words, "optim.lr=1e-2,1e-3,1e-7", "sweep/pruner=median", "sweep.pruner.after_trials=2", "sweep.slots=1"
    )
    assert sweeper.states() == ["complete", "complete", "pruned"]
    assert sweeper.results(2).events()[-1]["event"] == "stop"
    assert list(sweeper.results(2).folder.glob("checkpoints/step_*[0-9]/manifest.json"))


LATE = ("a metric that never appears",)  # which the first evaluation tells
BAD = {
    "nothing is swept": (("optim.lr=0.1",), "Nothing is swept"),
    "too many ranks": (
        ("optim.lr=1,2", "sweep.ranks=999", "train.global_batch=1000"),
        "sweep.ranks=999 is more than this machine has",
    ),
    "a storage that is none": (("optim.lr=1,2", "sweep.storage=nonsense://x"), "cannot be used"),
    "a metric that never appears": (
        ("optim.lr=1,2", "sweep.metric=f1"),
        "sweep.metric=f1 is no metric of the task",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_message_before_anything_is_trained(sweeper: Sweeper, case: str) -> None:
    words, says = BAD[case]
    code, _, errors = sweeper.run(*SHORT, *words)
    assert (code, errors.count("\n"), errors.startswith("error: ")) == (2, 1, True), errors
    assert says in errors
    assert not sweeper.sweep.exists() or case in LATE or list(sweeper.sweep.glob("0*")) == []


def test_storage_of_another_search_is_left_alone_and_a_torn_journal_is_mended(sweeper: Sweeper) -> None:
    words = (*SHORT, "optim.lr=1e-3,1e-2")
    sweeper.finish(*words)
    journal = sweeper.sweep / "journal.jsonl"
    before = journal.read_bytes()
    code, _, errors = sweeper.run(*SHORT, "optim.lr=1e-3,1e-1")
    assert (code, journal.read_bytes()) == (2, before)
    assert "holds another search, with another space. Type run.name=" in errors
    journal.write_bytes(before + b'{"op_code": 4, "work')
    assert sweeper.run(*words)[0] == 0
    assert journal.read_bytes().startswith(before)
    assert b"work\n" not in journal.read_bytes()


def test_code_that_changed_meanwhile_ends_no_trial(sweeper: Sweeper) -> None:
    """What the run itself says about it is what the sweep says, and accepting it goes on."""
    pace = Pace(after=6, gate=str(sweeper.folder / "gate"))
    (sweeper.folder / "mine.py").write_text("from tests.pacer import Paced\n\nclass Mine(Paced):\n    pass\n")
    words = (*SHORT, "train.steps=30", "optim.lr=1e-3,1e-2", "task._target_=mine.Mine", "sweep.slots=1")
    environ = {**pace.environ(), "PYTHONPATH": f"{sweeper.folder}:{ROOT}"}
    process = sweeper.start(*words, environ=environ)
    until(lambda: sweeper.results(0).reached(4), 100.0)
    interrupt(process)
    pace.open()
    process.communicate(timeout=100)
    with (sweeper.folder / "mine.py").open("a") as file:
        file.write("\nADDED = 1\n")
    code, _, errors = sweeper.run(*words, environ=environ)
    assert (code, errors.count("\n")) == (2, 1), errors
    assert "its code or data changed" in errors
    sweeper.finish(*words, "run.accept=changed", environ=environ)
    assert sweeper.states() == ["complete"] * 2


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_whatever_is_killed_whenever_every_trial_ends_once_with_the_same_weights(
    sweeper: Sweeper, starter: Starter
) -> None:
    """Two processes work on it, and now one process of theirs is killed, now both are with all that they started."""
    chance = random.Random(7)
    words = ("model=mlp", "data.augment=null", "train.steps=6000", "checkpoint.every=500", "sweep.ranks=2")
    space = ("optim.lr=1e-3,3e-3,1e-2", "model.hidden=[8],[16]")
    decided: dict[int, float] = {}
    hits = 0
    for _ in range(10):
        crew = [sweeper.start(*words, *space) for _ in range(2)]
        with suppress(subprocess.TimeoutExpired):
            crew[0].wait(chance.uniform(4.0, 9.0))
        warm = [pid for process in crew for pid in children(process.pid)]
        hits += crew[0].poll() is None
        victims = [*(process.pid for process in crew), *warm, *(rank for pid in warm for rank in children(pid))]
        with suppress(ProcessLookupError):
            os.kill(chance.choice(victims), signal.SIGKILL)
        with suppress(subprocess.TimeoutExpired):
            crew[0].wait(3.0)
        for process in crew:
            process.kill()
            process.communicate()
        rows = sweeper.found["rows"] if (sweeper.sweep / "sweep.json").exists() else []
        assert {row["state"] for row in rows} <= {"complete", "running", "queued"}, "nothing prunes, and nothing failed"
        for row in rows:
            if row["state"] == "complete":
                assert decided.setdefault(row["trial"], row["value"]) == row["value"]
    assert hits > 4, "all were done too soon"
    found = sweeper.finish(*words, *space)
    assert sweeper.states() == ["complete"] * 6
    for row in found["rows"]:
        assert decided.get(row["trial"], row["value"]) == row["value"]
        alone = starter.train(2, *words, *row["words"], name=f"alone-{row['trial']}")
        assert sweeper.results(row["trial"]).sha256 == alone.sha256

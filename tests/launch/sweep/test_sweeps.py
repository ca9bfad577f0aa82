"""A sweep trains every point once as a whole run of its own, whatever happens meanwhile."""

import json
import os
import random
import re
import signal
import socket
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest

from phalanx.launch.host.processes import children
from phalanx.run_folder.names import STOP
from phalanx.system.listening_sockets import listening_addresses, non_loopback_addresses
from tests.launch.sweep.sweeper import SHORT, Sweeper, fork_server_of, interrupt
from tests.paced_task import TASK, Pace
from tests.ranks import ROOT, Results, Starter, holder, until
from tests.train.distributed.fault_injection import TASK as SABOTAGED
from tests.train.distributed.fault_injection import Sabotage

CLASSIFICATION = "task._target_=phalanx.tasks.Classification"
# A start stands still in its seventh step, a checkpoint at the fourth behind it.
SLOW = (*SHORT, "train.steps=60", TASK)


def pace(sweeper: Sweeper, name: str) -> Pace:
    return Pace(after=6, gate=str(sweeper.folder / name))


def test_killed_or_interrupted_sweep_goes_on_where_it_was_and_code_that_changed_meanwhile_ends_no_trial(
    sweeper: Sweeper,
) -> None:
    """What the run itself says of changed code is what the sweep says, and accepting it goes on."""
    (sweeper.folder / "mine.py").write_text("from tests.paced_task import Paced\n\nclass Mine(Paced):\n    pass\n")
    words = (*SLOW, "optim.lr=1e-3,1e-2", "task._target_=mine.Mine", "sweep.slots=1")
    path = {"PYTHONPATH": f"{sweeper.folder}:{ROOT}"}

    first = pace(sweeper, "first")
    process = sweeper.start(*words, environ={**first.environ(), **path})
    until(lambda: sweeper.results(0).reached(4), 100.0)
    ranks = children(fork_server_of(process))
    assert ranks
    process.kill()
    process.communicate()
    first.open()
    until(lambda: not any(Path(f"/proc/{rank}/cmdline").exists() for rank in ranks))

    second = pace(sweeper, "second")
    process = sweeper.start(*words, environ={**second.environ(), **path})
    until(lambda: sweeper.results(0).reached(12), 100.0)
    interrupt(process)
    second.open()
    output, errors = process.communicate(timeout=100)
    assert (process.returncode, errors) == (7, "")
    assert "stopped, all saved; the same command continues" in output
    assert sweeper.results(0).events()[-1]["event"] == "preempt"
    assert sweeper.found["state"] == "stopped"

    with (sweeper.folder / "mine.py").open("a") as file:
        file.write("\nADDED = 1\n")
    environ = {**second.environ(), **path}
    code, _, errors = sweeper.run(*words, environ=environ)
    assert (code, errors.count("\n")) == (2, 1), errors
    assert "its code or data changed" in errors
    sweeper.finish(*words, "run.accept=changed", environ=environ)
    assert sweeper.states() == ["complete"] * 2
    assert sweeper.starts() == {"0000": ["start", "resume", "resume"], "0001": ["start"]}


def test_cancelled_or_stopped_sweep_goes_on_by_the_same_command_and_a_rank_of_the_next_trial_waits_meanwhile(
    sweeper: Sweeper,
) -> None:
    words = (*SLOW, "optim.lr=1e-3,1e-2", "sweep.slots=1")
    process = sweeper.start(*words, environ=pace(sweeper, "first").environ())
    until(lambda: sweeper.results(0).reached(4) and (sweeper.sweep / "sweep.json").exists(), 100.0)
    fork_server = fork_server_of(process)
    ranks = children(fork_server)
    assert sweeper.phalanx("cancel", "s").stdout == f"ended process {process.pid} on {socket.gethostname()}\n"
    assert process.wait(10) == 7
    process.communicate()
    until(lambda: not any(Path(f"/proc/{pid}/cmdline").exists() for pid in (fork_server, *ranks)))
    assert "neither running nor queued: it is stopped" in sweeper.phalanx("cancel", "s").stderr

    second = pace(sweeper, "second")
    process = sweeper.start(*words, environ=second.environ())
    until(lambda: sweeper.results(0).reached(8), 100.0)
    assert sweeper.phalanx("stop", "s", "--no-wait").returncode == 0
    second.open()
    output, errors = process.communicate(timeout=100)
    assert (process.returncode, errors) == (7, "")
    assert "stopped, all saved; the same command continues" in output

    third = pace(sweeper, "third")
    process = sweeper.start(*words, environ=third.environ())
    until(lambda: sweeper.starts()["0000"] == ["start", "resume", "resume"], 100.0)
    until(lambda: len(children(fork_server_of(process))) == 2)
    third.open()
    output, errors = process.communicate(timeout=100)
    assert process.returncode == 0, output + errors
    assert sweeper.states() == ["complete"] * 2
    assert sweeper.forked(1) < sweeper.results(0).events("finish")[0]["time"]


def test_killed_ranks_of_a_trial_and_of_the_next_one_cost_nothing_but_time(sweeper: Sweeper) -> None:
    """Seeds are what is swept, as they may, and points that are the same run as another, which is trained once."""
    gate = pace(sweeper, "gate")
    words = (*SHORT, "train.steps=30", TASK, "data.workers=0,1", "seed=5,6", "sweep.ranks=2")
    process = sweeper.start(*words, environ=gate.environ())
    until(lambda: sweeper.results(0).reached(4), 100.0)
    fork_server = fork_server_of(process)
    until(lambda: len(children(fork_server)) == 4)
    ours = [process.pid, fork_server, *children(fork_server)]
    assert listening_addresses(ours)
    assert non_loopback_addresses(ours) == set()
    _, trains, _, waits = children(fork_server)
    for victim in (waits, trains):
        os.kill(victim, signal.SIGKILL)
    gate.open()
    output, errors = process.communicate(timeout=200)
    assert process.returncode == 0, output + errors
    assert sweeper.states() == ["complete"] * 4
    assert sweeper.starts() == {"0000": ["start", "resume"], "0001": ["start"]}
    assert sweeper.results(0).sha256 != sweeper.results(1).sha256
    values = [row["value"] for row in sweeper.found["rows"]]
    assert values[:2] == values[2:]


def test_processes_share_a_sweep_and_one_takes_up_what_others_had_to_leave(sweeper: Sweeper) -> None:
    """One is killed, one is told to leave; and of the one that stays the process is killed that ranks are forked from."""
    gate = pace(sweeper, "gate")
    words = (*SHORT, "train.steps=30", TASK, "optim.lr=1e-3,1e-2", "model.hidden=[8],[16]", "sweep.slots=1")
    killed, told, staying = (sweeper.start(*words, environ=gate.environ()) for _ in range(3))
    until(lambda: all(sweeper.results(trial).reached(4) for trial in (0, 1, 2)), 100.0)
    assert re.search("s +running +0/4 .*3 at work", sweeper.phalanx("status").stdout)
    assert sweeper.phalanx("report", "s").stdout == "runs/s/report.html\n"
    assert re.search(r"running, \d of 4 trials", (sweeper.sweep / "report.html").read_text())
    fork_server = [fork_server_of(killed), fork_server_of(staying)]
    killed.kill()
    told.terminate()
    os.kill(fork_server[1], signal.SIGKILL)
    until(lambda: not any(Path(f"/proc/{pid}/cmdline").exists() for pid in fork_server))
    gate.open()
    assert killed.wait(100) == -signal.SIGKILL
    assert told.wait(100) == 3
    output, errors = staying.communicate(timeout=200)
    assert staying.returncode == 0, output + errors
    killed.communicate()
    told.communicate()
    assert sweeper.states() == ["complete"] * 4
    assert sweeper.found["state"] == "finished"
    assert sorted(sweeper.starts().values()) == [["start"], *[["start", "resume"]] * 3]
    (left,) = (sweeper.sweep / "workers").iterdir()
    assert f"-{killed.pid}-" in left.name, "the others took theirs away"


def test_a_trial_that_fails_is_on_record_and_the_others_go_on_until_too_many_have(sweeper: Sweeper) -> None:
    tasks = f"{CLASSIFICATION},{SABOTAGED.removeprefix('task._target_=')}"
    words = (*SHORT, "train.max_skips=2", "optim=sgd", tasks, "optim.lr=1e-2,1e30,1e-3", "sweep.slots=1")
    code, output, _ = sweeper.run(*words, "sweep.max_failures=1", environ=Sabotage(0, "step", "memory", 2).environ())
    assert code == 4
    assert "gave up: more than 1 trials failed (sweep.max_failures)" in output
    assert sweeper.states()[:4] == ["complete", "failed", "complete", "failed"]
    assert "in a row" in sweeper.found["rows"][1]["error"]
    assert "MemoryError" in sweeper.found["rows"][3]["error"]
    assert (sweeper.sweep / "journal.jsonl").read_text().count('"out_of_memory":true') == 1
    assert sweeper.found["best"]["trial"] in (0, 2)
    assert [*sweeper.starts()] == ["0000", "0001", "0002", "0003"]


def test_seeds_repeat_each_point_their_mean_ranks_it_and_one_ends_when_another_has_failed(sweeper: Sweeper) -> None:
    """Killed three times, which is as often as a sweep begins it again."""
    gate = pace(sweeper, "gate")
    words = (*SHORT, TASK, "train.steps=40", "optim.lr=1e-3,1e-2", "sweep.seeds=2", "seed=5", "sweep.slots=2")
    process = sweeper.start(*words, environ=gate.environ())
    unlucky, other = (Results(sweeper.sweep / f"0000-seed{seed}") for seed in (5, 6))
    until(lambda: unlucky.reached(4) and other.reached(4), 100.0)
    for start in (1, 2, 3):
        until((unlucky.folder / "lease" / f"{start:08d}.json").exists, 100.0)
        os.kill(holder(unlucky.folder), signal.SIGKILL)
    until(lambda: sweeper.states()[0] == "failed")
    gate.open()
    output, errors = process.communicate(timeout=100)
    assert process.returncode == 0, output + errors
    assert "SIGKILL" in sweeper.found["rows"][0]["error"]
    assert other.events("preempt")
    repeated = [sweeper.sweep / f"0001-seed{seed}/summary.json" for seed in (5, 6)]
    assert sorted(sweeper.sweep.glob("*/summary.json")) == repeated
    row = sweeper.found["rows"][1]
    assert row["by_seed"] == [json.loads(summary.read_text())["eval"]["accuracy"] for summary in repeated]
    assert (row["step"], row["steps"]) == (40, 40)
    assert row["value"] == pytest.approx(sum(row["by_seed"]) / 2)


def test_halving_pauses_trials_at_a_rung_and_whoever_is_free_promotes_the_best_from_their_checkpoints(
    sweeper: Sweeper, starter: Starter
) -> None:
    """Two processes, and what they share is a database, as it may be."""
    words = ("model=mlp", "model.hidden=[16]", "train.steps=90", "eval.every=10", "log.every=10", "data.augment=null")
    space = ("optim.lr=choice(1e-5,1e-4,3e-3,1e-6,2e-5,1e-2,2e-6,1e-7,5e-5)", "sweep/pruner=asha", "sweep.slots=1")
    storage = f"sweep.storage=sqlite:///{sweeper.folder}/sweep.db"
    peers = [sweeper.start(*words, *space, storage) for _ in range(2)]
    for process in peers:
        output, errors = process.communicate(timeout=100)
        assert process.returncode == 0, output + errors
    states = sweeper.states()
    assert len(states) == 9
    assert set(states) == {"complete", "pruned"}
    assert states[2] == "complete" or states[5] == "complete"
    assert sweeper.found["state"] == "finished"
    steps = [max(line["step"] for line in sweeper.results(trial).metrics()) for trial in range(9)]
    assert sorted(steps) == [10, 10, 10, 10, 10, 10, 30, 30, 90]
    (done, *_) = [trial for trial in range(9) if states[trial] == "complete"]
    assert "resume" in [e for events in sweeper.starts().values() for e in events], "somebody was promoted"
    lr = sweeper.found["rows"][done]["words"][0]
    assert sweeper.results(done).sha256 == starter.train(1, *words, lr, name="alone").sha256


EARLY = (
    *("model=mlp", "model.hidden=[16]", "train.steps=60", "log.every=10", "data.augment=null", "eval.every=10"),
    *("early_stop.metric=loss", "early_stop.patience=1", "early_stop.min_delta=0.01", "sweep.slots=1"),
)


def test_trials_that_stop_early_are_complete_and_what_ended_each_is_told(sweeper: Sweeper, starter: Starter) -> None:
    code, output, errors = sweeper.run(*EARLY, "optim.lr=1e-9,1e-2", "sweep.seeds=2")
    assert code == 0, output + errors
    early, whole = sweeper.found["rows"]
    assert [(row["state"], row["ended_by"], row["step"]) for row in (early, whole)] == [
        ("complete", "early_stop", 20),
        ("complete", "steps", 60),
    ]
    assert "trial 0  complete by early_stop  " in output
    assert "trial 1  complete  " in output
    table = (sweeper.sweep / "trials.csv").read_text().splitlines()
    assert [line.rpartition(",")[2] for line in table] == ["ended_by", "early_stop", "steps"]
    assert sweeper.phalanx("report", "s").returncode == 0
    assert "complete by early_stop" in (sweeper.sweep / "report.html").read_text()
    run = Results(sweeper.sweep / "0000-seed0")
    assert run.metrics("eval")[-1]["step"] == 20
    assert early["by_seed"][0] == run.metrics("eval")[-1]["accuracy"]
    assert run.sha256 == starter.train(1, *EARLY, "optim.lr=1e-9", "seed=0", name="alone").sha256


def test_halving_trains_the_best_to_its_end_where_another_stopped_early_at_a_lower_rung_or_with_less(
    sweeper: Sweeper,
) -> None:
    """Of two trials none would go on, and the only one that is complete is the one that gave up."""
    rungs = ("sweep/pruner=asha", "sweep.pruner.first_step=20", "sweep.metric=loss")
    found = sweeper.finish(*EARLY, "optim.lr=choice(1e-9,1e-2)", *rungs)
    assert [(row["state"], row["ended_by"]) for row in found["rows"]] == [
        ("complete", "early_stop"),
        ("complete", "steps"),
    ]
    assert found["best"]["trial"] == 1
    assert sweeper.starts() == {"0000": ["start"], "0001": ["start", "resume"]}


def test_median_pruner_ends_trials_that_fall_behind(sweeper: Sweeper) -> None:
    """The third stands still behind its first evaluation, which is as bad as the first one's, until it is told to leave."""
    gate = Pace(after=12, gate=str(sweeper.folder / "gate"))
    words = ("model=mlp", "model.hidden=[8]", "train.steps=60", "eval.every=10", "log.every=10", "data.augment=null")
    space = (f"{CLASSIFICATION},{TASK.removeprefix('task._target_=')}", "optim.lr=1e-7,1e-2")
    order = ("sweep.sampler=grid", "sweep.trials=3", "sweep.slots=1")
    pruner = ("sweep/pruner=median", "sweep.pruner.after_trials=2")
    process = sweeper.start(*words, *space, *order, *pruner, environ=gate.environ())
    until((sweeper.results(2).folder / STOP).exists, 100.0)
    gate.open()
    output, errors = process.communicate(timeout=100)
    assert process.returncode == 0, output + errors
    assert sweeper.states() == ["complete", "complete", "pruned"]
    assert sweeper.results(2).events()[-1]["event"] == "stop"
    assert list(sweeper.results(2).folder.glob("checkpoints/step_*[0-9]/manifest.json"))


BAD = {
    "nothing is swept": (("optim.lr=0.1",), "Nothing is swept"),
    "too many ranks": (
        ("optim.lr=1,2", "sweep.ranks=999", "train.global_batch=1000"),
        "sweep.ranks=999 is more than this machine has",
    ),
    "a storage that is none": (("optim.lr=1,2", "sweep.storage=nonsense://x"), "cannot be used"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_message_before_anything_is_trained(sweeper: Sweeper, case: str) -> None:
    words, says = BAD[case]
    code, _, errors = sweeper.run(*SHORT, *words)
    assert (code, errors.count("\n"), errors.startswith("error: ")) == (2, 1, True), errors
    assert says in errors
    assert list(sweeper.sweep.glob("0*")) == []


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_whatever_is_killed_whenever_every_trial_ends_once_with_the_same_weights(
    sweeper: Sweeper, starter: Starter
) -> None:
    """Two processes work on it, and now one process of theirs is killed, now both are with all that they started.

    Of ranks two: a run whose ranks were killed three times has failed.
    """
    chance = random.Random(7)
    words = ("model=mlp", "data.augment=null", "train.steps=6000", "checkpoint.every=500", "sweep.ranks=2")
    space = ("optim.lr=1e-3,3e-3,1e-2", "model.hidden=[8],[16]")
    decided: dict[int, float] = {}
    hits = rank_kills = 0
    for _ in range(10):
        peers = [sweeper.start(*words, *space) for _ in range(2)]
        with suppress(subprocess.TimeoutExpired):
            peers[0].wait(chance.uniform(0.3, 3.0))
        fork_server = [pid for process in peers for pid in children(process.pid)]
        hits += peers[0].poll() is None
        ranks = [rank for pid in fork_server for rank in children(pid)] if rank_kills < 2 else []
        victim = chance.choice([*(process.pid for process in peers), *fork_server, *ranks])
        rank_kills += victim in ranks
        with suppress(ProcessLookupError):
            os.kill(victim, signal.SIGKILL)
        with suppress(subprocess.TimeoutExpired):
            peers[0].wait(1.5)
        for process in peers:
            process.kill()
            process.communicate()
        rows = sweeper.found["rows"] if (sweeper.sweep / "sweep.json").exists() else []
        assert {row["state"] for row in rows} <= {"complete", "running", "queued"}, rows  # nothing prunes or fails
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

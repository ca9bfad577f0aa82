"""What a sweep decides by itself: its space, its slots, who goes on at a rung, and where no point is drawn again."""

import dataclasses
import itertools
import json
import os
import re
import time
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from phalanx.common.files import read_json, write_json
from phalanx.compose.compose import compose
from phalanx.config.schema import Mode, SweepConfig
from phalanx.exit.codes import ConfigError
from phalanx.launch.common.sweep_folder import JOURNAL
from phalanx.launch.host.machine import Gpu, Machine
from phalanx.launch.reporting import sweep_page as page
from phalanx.launch.reporting.code_edits import differences
from phalanx.launch.reporting.sweep_table import SweepTable
from phalanx.launch.search.asha import Asha, RungState
from phalanx.launch.search.optuna_study import Search, open_search
from phalanx.launch.search.space import Choice, Interval, SearchSpace, parse_space
from phalanx.launch.search.trial_storage import MEMORY
from phalanx.launch.state.sweep_peers import SweepPeers
from phalanx.launch.sweep.energy import EnergyMeter
from phalanx.launch.sweep.results import SweepResults, TrialRow, best_of, command
from phalanx.launch.sweep.scheduler import Scheduler
from phalanx.launch.sweep.trial import SweepPlan
from phalanx.launch.sweep.trial_queue import TrialQueue
from phalanx.launch.sweep.workers import Slot, slots
from phalanx.run_folder import lease_holders

MODELS = ["convnet", "mlp", "resnet18"]


def space(*words: str) -> SearchSpace:
    return parse_space(words, lambda group: MODELS)


def test_hydras_grammar_spells_the_space() -> None:
    found = space(
        "experiment=digits",
        "--config-dir=conf",
        "optim.lr=tag(log,interval(1e-4,1e-1))",
        "train.micro_batch=int(interval(1,8))",
        "train.global_batch=choice(32,64)",
        "model=glob(*,exclude=res*)",
        "seed=range(1,7,2)",
        "model.hidden=[8],[16,8]",
        "+task.note='a b','c,d'",
    )
    assert found.typed == ("experiment=digits", "--config-dir=conf", *range(7))
    assert found.dimensions == (
        Interval("optim.lr", 1e-4, 1e-1, log=True),
        Interval("train.micro_batch", 1, 8, log=False),
        Choice("train.global_batch", ("32", "64")),
        Choice("model", ("convnet", "mlp")),
        Choice("seed", ("1", "3", "5")),
        Choice("model.hidden", ("[8]", "[16,8]")),
        Choice("+task.note", ("'a b'", "'c,d'")),
    )


def test_boundary_points_have_every_choice_and_both_ends_of_every_interval() -> None:
    found = list(space("a=1,2,3", "b=interval(0.5,1.5)").boundary_points())
    assert [point["a"] for point in found] == ["1", "2", "3"]
    assert {point["b"] for point in found} == {0.5, 1.5}


def machine(cores: int = 8, gpus: int = 0, nodes: int = 1) -> Machine:
    found = tuple(Gpu(f"GPU-{number}", 0, slice=False) for number in range(gpus))
    return Machine(frozenset(range(cores)), found, {})


def config(**changes: Any) -> SweepConfig:
    return compose([f"sweep.{name}={value}" for name, value in changes.items()]).config.sweep


@pytest.mark.parametrize(
    ("settings", "cores", "gpus", "expected"),
    [
        ({"ranks": 2}, 8, 0, [Slot(n, (), 1) for n in range(4)]),
        ({"ranks": 2, "slots": 2}, 8, 0, [Slot(n, (), 2) for n in range(2)]),
        ({"ranks": 2}, 16, 5, [Slot(0, ("GPU-0", "GPU-1"), 4), Slot(1, ("GPU-2", "GPU-3"), 4)]),
        ({"ranks": 1, "per_gpu": 2}, 8, 2, [Slot(n, (f"GPU-{n // 2}",), 2) for n in range(4)]),
        ({"ranks": 1, "slots": 9}, 8, 2, [Slot(n, (f"GPU-{n}",), 4) for n in range(2)]),
    ],
)
def test_a_machine_is_divided_into_slots_that_share_nothing_unasked(
    settings: dict[str, int], cores: int, gpus: int, expected: list[Slot]
) -> None:
    found = machine(cores, gpus)
    assert slots(config(**settings), found, found.gpus, {}) == expected


def test_threads_that_are_typed_hold_in_every_slot() -> None:
    assert {slot.threads for slot in slots(config(ranks=2), machine(), (), {"OMP_NUM_THREADS": "3"})} == {3}


def test_more_ranks_than_there_is_room_for_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"sweep.ranks=3 is more .* free GPUs for: 2. Type sweep.ranks=2"):
        slots(config(ranks=3), machine(gpus=2), machine(gpus=2).gpus, {})


def test_trials_that_share_a_gpu_share_what_it_uses_meanwhile() -> None:
    counters = {"a": 0.0, "b": 100.0}
    alone, left, right = Slot(0, ("b",), 1), Slot(1, ("a",), 1), Slot(2, ("a", "b"), 1)
    energy = EnergyMeter(counters.__getitem__, [alone, left, right])
    energy.begin(left)
    counters["a"] = 10.0
    energy.begin(right)
    counters |= {"a": 20.0, "b": 103.0}
    assert energy.end(left) == 15.0
    counters["a"] = 21.0
    assert energy.end(right) == 5.0 + 1.0 + 3.0
    energy.begin(alone)
    assert energy.end(alone) == 0.0


@pytest.mark.parametrize("slot", [Slot(0, (), 1), Slot(0, ("a",), 1)])
def test_energy_that_nobody_measures_is_not_known(slot: Slot) -> None:
    energy = EnergyMeter(lambda gpu: None, [slot])
    energy.begin(slot)
    assert energy.end(slot) is None


ASHA = Asha(first=10, eta=3, batch=64, smaller=True)
NAN = float("inf")  # as a sweep reports what is no number to smaller-is-better


def rung_state(values: dict[int, float], batch: int = 64, every: int = 10, promoted: int = 0) -> RungState:
    return RungState(batch, every, values, promoted)


def rung_states(*values: float, step: int = 10) -> list[RungState]:
    return [rung_state({step: value}) for value in values]


def test_rungs_are_where_as_many_samples_were_seen_and_an_evaluation_is() -> None:
    assert [ASHA.next_step(rung_state(dict.fromkeys(range(10, at, 10), 1.0))) for at in (10, 20, 40)] == [10, 30, 90]
    assert ASHA.next_step(rung_state({}, batch=128)) == 10, "the first evaluation after 5 steps"
    assert ASHA.next_step(rung_state({10: 1.0}, batch=32)) == 20
    assert [ASHA.next_step(rung_state(values, every=7)) for values in ({}, {14: 1.0}, {14: 1.0, 35: 1.0})] == [
        14,
        35,
        91,
    ]


def test_one_of_three_goes_on_at_each_rung() -> None:
    everyone = dict(enumerate(rung_states(3.0, 1.0, 2.0)))
    assert ASHA.promotable(everyone) == {1}
    assert ASHA.promotable({0: everyone[0], 1: everyone[1]}) == set(), "of two none, so far"
    assert Asha(10, 3, 64, smaller=False).promotable(everyone) == {0}
    assert ASHA.promotable(everyone | {3: rung_state({})}) == {1, 3}, "one that came to no rung yet goes on"


def test_each_rung_has_a_cut_of_its_own() -> None:
    low, high = (
        rung_states(0.1, 0.2, 0.3, 5.0, 5.0, 5.0),
        [rung_state({10: 1.0, 30: value}) for value in (0.4, 0.5, 0.6)],
    )
    everyone = dict(enumerate([*low, *high]))
    assert ASHA.promotable(everyone) == {0, 1, 2, 6}
    assert ASHA.best_paused(everyone) == 6, "the best of those that came furthest"


@pytest.mark.parametrize("smaller", [True, False])
@pytest.mark.parametrize("there", [3, 4, 9, 11])
def test_of_equals_exactly_one_of_three_goes_on_in_whatever_order_they_came(there: int, smaller: bool) -> None:
    asha = Asha(10, 3, 64, smaller)
    for order in (range(there), reversed(range(there))):
        everyone: dict[int, RungState] = {}
        for number in order:
            everyone[number] = rung_state({10: 0.5})
            for fit in asha.promotable(everyone):
                everyone[fit] = rung_state({10: 0.5}, promoted=1)
        assert sum(one.promoted for one in everyone.values()) == there // 3


def test_what_is_no_number_never_goes_on() -> None:
    """Not even where it is at the cut, nor as the best of all."""
    assert ASHA.promotable(dict(enumerate(rung_states(1.0, NAN, NAN, NAN, NAN, NAN)))) == {0}
    assert ASHA.promotable(dict(enumerate(rung_states(NAN, NAN, NAN)))) == set()
    assert Asha(10, 3, 64, smaller=False).promotable(dict(enumerate(rung_states(-NAN, -NAN, 0.5)))) == {2}
    assert ASHA.best_paused(dict(enumerate(rung_states(NAN, 3.0, 2.0)))) == 2
    assert ASHA.best_paused(dict(enumerate(rung_states(NAN, NAN)))) is None


def search(folder: Path, sampler: str, *words: str, **changes: Any) -> Search:
    folder.mkdir(exist_ok=True)
    identity = {"sampler": sampler, "space": words}
    return open_search(
        folder, space(*words), config(trials=40, mode="min", **changes), [identity], lambda: nullcontext(True)
    )


def test_points_depend_on_the_seed_and_on_what_is_known_and_on_nothing_else(tmp_path: Path) -> None:
    words = ("optim.lr=tag(log,interval(1e-4,1e-1))", "b=x,y")
    drawn = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        for number in range(15):
            # Each time as after a restart.
            found = search(tmp_path / name / "s", "tpe", *words)
            assert found.ask() == number
            found.complete(number, [number % 5])
        drawn.append([found.words(number) for number in range(15)])
    assert drawn[0] == drawn[1]
    assert len({tuple(words) for words in drawn[0]}) == 15


def test_no_point_is_drawn_close_to_one_that_ran_out_of_memory(tmp_path: Path) -> None:
    found = search(tmp_path / "s", "random", "train.micro_batch=int(interval(0,100))", seed=3)
    first = found.ask()
    assert first is not None
    found.fail(first, "CUDA out of memory", out_of_memory=True)
    assert found.attr(first, MEMORY, False) is True
    bad = int(found.words(first)[0].partition("=")[2])
    for _ in range(30):
        number = found.ask()
        assert number is not None
        assert abs(int(found.words(number)[0].partition("=")[2]) - bad) > 10


def test_command_of_a_point_has_no_secret_in_it() -> None:
    """It goes into the page, too."""
    found = command(["optim.lr=0.1", "data.password=hunter2hunter2", "sweep.storage=db://u:hunter2@h/x"], 2)
    assert "hunter2" not in found
    assert found.startswith("phalanx run -n 2 optim.lr=0.1 ")


def test_a_decision_on_record_is_never_revised(tmp_path: Path) -> None:
    found = search(tmp_path / "s", "random", "a=interval(0.0,1.0)")
    for number in range(3):
        assert found.ask() == number
    found.complete(0, [1.0, 3.0])
    found.prune(1)
    again = search(tmp_path / "s", "random", "a=interval(0.0,1.0)")
    assert [trial.number for trial in again.trials() if not trial.state.is_finished()] == [2]
    assert [trial.number for trial in again.completed()] == [0]
    assert again.completed()[0].value == 2.0
    for number in (0, 1):
        with pytest.raises(RuntimeError, match="already finished"):
            again.complete(number, [9.0])
    lines = (tmp_path / "s" / JOURNAL).read_text().splitlines()
    assert all(json.loads(line) for line in lines)


def test_telling_of_many_trials_costs_two_processes_little_of_their_time(tmp_path: Path) -> None:
    """Both hear of every evaluation, and each could write the files anew."""
    found = search(tmp_path / "s", "random", "a=interval(0.0,1.0)")
    for _ in range(40):
        found.ask()
    plan = SweepPlan(
        tmp_path / "s",
        space("a=interval(0.0,1.0)"),
        config(trials=40),
        "accuracy",
        "eval",
        "accuracy",
        Mode.max,
        0,
        (),
        None,
        compose,
        None,
        frozenset(),
    )
    with (
        SweepPeers(tmp_path / "s") as peers,
        SweepTable(is_terminal=False) as one,
        SweepTable(is_terminal=False) as two,
    ):
        told = SimpleNamespace(plan=plan, search=found, queue=TrialQueue(plan, found, peers), slots=())
        began, spent_s, steps = time.monotonic(), 0.0, itertools.count(1)
        while time.monotonic() < began + 2.0:
            found.report(0, next(steps), 0.5)
            before = time.thread_time()
            for board in (one, two):
                board.show(cast("Scheduler", told))
            spent_s += time.thread_time() - before
    (row, *_) = read_json(tmp_path / "s" / "sweep.json")["rows"]
    assert row["step"] > 1, "it is renewed all the same"
    assert spent_s < 0.5


def row(trial: int, state: str, value: float | None, run: str = "", **changes: Any) -> TrialRow:
    known = {"by_seed": [], "step": 5, "steps": 8, "rank_s": 1.0, "energy_j": None, "added": [], "error": None}
    words = [f"optim.lr={trial + 1}", "model.hidden=[8]"]
    return TrialRow(
        trial=trial, state=state, value=value, words=words, run=run or f"{trial:04d}", **{**known, **changes}
    )


def found(folder: Path, rows: list[TrialRow]) -> SweepResults:
    dimensions: list[Choice | Interval] = [
        Interval("optim.lr", 1, 1000, log=False),
        Choice("model.hidden", ("[8]", "[16]")),
    ]
    return SweepResults(
        folder, "finished", "loss", Mode.min, len(rows), 1, ["model=mlp", 0, "seed=1", 1], dimensions, rows
    )


def test_the_board_of_a_sweep_fits_a_terminal_of_80_columns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    swept = ("optim.lr", "model.dropout", "train.global_batch", "optim.weight_decay")
    dimensions = [Interval(key, 0.0, 1.0, log=False) for key in swept]
    plan = SimpleNamespace(
        folder=tmp_path / "s", metric="accuracy", mode=Mode.max, space=SearchSpace((), (*dimensions,))
    )
    words = [f"{key}=0.25" for key in swept]
    rows = [dataclasses.replace(row(n, "complete", 0.8), words=words) for n in range(3)] + [row(3, "running", None)]
    with SweepTable(is_terminal=True) as board:
        board.print_ended(cast("Scheduler", SimpleNamespace(plan=plan, search=SimpleNamespace(size=9))), rows)
    title, heads, *_ = (line.strip() for line in capsys.readouterr().out.splitlines())
    assert title == "s: 3/9 trials, 1 running, 3 complete, best 0.8 (trial 0), ETA -"
    assert heads.split() == ["trial", "state", "accuracy", "step", "lr", "dropout", "global_batch", "weight_decay"]


def test_page_shows_what_was_pruned_and_every_failure(tmp_path: Path) -> None:
    complete = [row(trial, "complete", float(trial)) for trial in range(250)]
    rows = [*complete, row(250, "failed", None, error="a bug"), row(251, "pruned", 7.5)]
    for trial in (0, 251):
        (tmp_path / f"{trial:04d}").mkdir()
        line = {"step": 5, "split": "eval", "time": 1.0, "loss": 7.5}
        (tmp_path / f"{trial:04d}/metrics.jsonl").write_text(json.dumps(line) + "\n")
    text = page.sweep_page(found(tmp_path, rows))
    legend = re.search(r'"name":"trial 0",.*"name":"trial 251, pruned",.*"showlegend":true', text)
    assert legend, "the curves are told apart"
    assert "trial 251, pruned at step 5" in text
    assert "<td>250</td><td>failed</td>" in text
    assert "51 more in trials.csv" in text


def test_command_of_the_best_point_has_its_words_where_they_were_typed_and_what_the_sweep_added(tmp_path: Path) -> None:
    rows = [row(0, "complete", 0.5, added=["train.threads=3"])]
    write_json(
        tmp_path / "sweep.json",
        {**vars(found(tmp_path, rows)), "mode": "min", "folder": "", "rows": [vars(rows[0])], "dimensions": []},
    )
    best = best_of(tmp_path)
    assert best.words == ["model=mlp", "optim.lr=1", "seed=1", "model.hidden=[8]", "train.threads=3"]


def test_trials_that_were_trained_with_other_code_are_said_to_be(tmp_path: Path) -> None:
    rows = [row(trial, "failed" if trial == 3 else "complete", 1.0) for trial in range(5)]
    for trial, code in enumerate([{"a.py": "1"}, {"a.py": "1", "b.py": "9"}, {"a.py": "2"}, {"a.py": "3"}]):
        (tmp_path / f"{trial:04d}").mkdir()
        write_json(tmp_path / f"{trial:04d}/environment.json", {"code": code})
    assert differences(tmp_path, rows[:2]) == "", "another target has other files"
    assert "different code (a.py): trials 0, 1; trials 2. They are ranked together" in differences(tmp_path, rows)
    assert "different code (a.py)" in page.sweep_page(found(tmp_path, rows))


def test_who_is_alive_is_told_by_touches_whatever_the_clocks_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of this machine, of another one, and of the file server: each may be an hour ahead or behind."""
    now = time.time()
    for skew_s in (3600.0, -3600.0):
        folder = tmp_path / f"{skew_s}"
        folder.mkdir()
        with SweepPeers(folder) as peers, monkeypatch.context() as patched:
            for name, touched in (("alive", now), ("dead", now - 3600.0)):
                (folder / "workers" / name / "lease").mkdir(parents=True)
                file = folder / "workers" / name / "lease" / "00000001.json"
                write_json(file, dataclasses.asdict(lease_holders.Holder(1, name, "another machine", 1, 1)))
                os.utime(file, (touched, touched))
            patched.setattr(time, "time", lambda skewed=now + skew_s: skewed)
            assert peers.is_alive("alive")
            assert peers.others()
            assert not peers.is_alive("dead")

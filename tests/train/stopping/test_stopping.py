"""A run ends where its metric gets no better, or its time is over: evaluated, saved and finished, kills or not."""

import signal
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from phalanx.compose.compose import compose
from phalanx.config.limits import check
from phalanx.config.metric_direction import WatchedMetric
from phalanx.config.schema import Mode
from phalanx.exit.codes import ConfigError, ExitCode
from phalanx.train.checkpoint.progress import Progress
from phalanx.train.stopping.early_stop import EarlyStop
from phalanx.train.stopping.time_limit import TimeLimit
from phalanx.train.stopping.time_spent import TimeSpent
from tests.ranks import Results, Starter, quoted, until
from tests.train.small_runs import planted

# A rate that grows spoils the model: the loss falls at first and rises then.
RUN = (
    *(word for word in planted(samples=96) if not word.startswith(("data.eval", "checkpoint.", "schedule"))),
    *("data.eval._target_=tests.train.faulty_parts.Planted", "~data.eval.split", "+data.eval.samples=40"),
    "data.test={_target_:tests.train.faulty_parts.Planted,samples:24}",
    *("optim=sgd", "optim.lr=60", "schedule=constant", "schedule.warmup_steps=60", "train.steps=60"),
    *("eval.every=3", "log.every=4", "checkpoint.every=5", "checkpoint.best_metric=loss", "data.prefetch=1"),
)
STOP = ("early_stop.metric=loss", "early_stop.patience=2")


def task(*words: str) -> tuple[str, ...]:
    return ("task._target_=tests.train.stopping.killing_task.Killing", *words)


def stop_step(results: Results, patience: int = 2, min_delta: float = 0.0) -> int:
    """By hand, from the lines of the evaluations."""
    best, waited = float("inf"), 0
    for line in results.metrics("eval"):
        waited = 0 if best - line["loss"] > min_delta else waited + 1
        best = line["loss"] if waited == 0 else best
        if waited == patience:
            return int(line["step"])
    raise AssertionError("it never got worse")


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_a_run_ends_at_the_same_step_and_with_the_same_bits_wherever_it_is_killed(starter: Starter, ranks: int) -> None:
    """Before, in and after the evaluation that decides."""
    never = ("+task.step=-1", "+task.training=true", "+task.call=1")
    whole = starter.train(ranks, *RUN, *task(*never), name="whole") if ranks == 1 else None
    plain = starter.train(ranks, *RUN, *STOP, *task(*never), name="plain")
    step = plain.summary["steps"]
    assert step == stop_step(plain) < 60
    assert plain.summary["ended_by"] == "early_stop"
    assert [event["evaluations"] for event in plain.events("early_stop")] == [2]
    assert {line["split"]: line["step"] for line in plain.metrics()} == {"train": step, "eval": step, "test": step}
    if whole is not None:
        assert (whole.summary["ended_by"], whole.summary["steps"]) == ("steps", 60)
        assert [line for line in whole.metrics("eval") if line["step"] <= step][-1]["loss"] == (
            plain.metrics("eval")[-1]["loss"]
        )
    again = starter.run(ranks, *RUN, *STOP, *task(*never), "run.name=plain")
    assert again.codes == [0] * ranks
    assert again.output.count(f"finished already: {step} steps, ended by early_stop") == 1
    kills = {
        "before": (f"+task.step={step - 1}", "+task.training=true", "+task.call=1"),
        "within": (f"+task.step={step}", "+task.training=false", "+task.call=1"),
        "after": (f"+task.step={step}", "+task.training=false", "+task.call=2"),  # in that of data.test
    }
    for name, where in kills.items():
        (starter.folder / "killed").unlink(missing_ok=True)
        ended = starter.run(ranks, *RUN, *STOP, *task(*where), f"run.name={name}")
        assert -signal.SIGKILL in ended.codes, name
        ended = starter.run(ranks, *RUN, *STOP, *task(*where), f"run.name={name}")
        assert ended.codes == [0] * ranks, ended.output
        found = starter.results(name)
        assert (found.summary["steps"], found.sha256) == (step, plain.sha256), name
        assert found.summary["ended_by"] == "early_stop"
        assert found.timeless() == plain.timeless(), name


def test_an_early_stopped_run_is_extended_and_loads(starter: Starter) -> None:
    import phalanx

    stopped = starter.train(1, *RUN, *STOP, name="stopped")
    run = phalanx.load(stopped.folder, trust=["tests"])
    assert run.summary is not None
    best = run.summary["best"]["step"]
    assert best < run.summary["steps"]
    own = run.model().state_dict()
    assert {name: value.tolist() for name, value in own.items()} == {
        name: value.tolist() for name, value in run.weights(best).items()
    }
    assert all(value.device.type == "cpu" for value in run.weights().values())
    longer = starter.train(1, *RUN, f"train.extend_from={quoted(str(stopped.folder))}", name="longer")
    assert (longer.summary["steps"], longer.summary["ended_by"]) == (60, "steps")
    assert longer.sha256 == starter.train(1, *RUN, name="whole").sha256


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_time_limit_over_all_starts_ends_a_run_that_is_evaluated_and_finished(starter: Starter, ranks: int) -> None:
    limit = (
        "train.time_limit=0:00:02",
        "train.steps=1000000",
        "checkpoint.every=null",
        "eval.every=null",
        "optim.lr=0.01",
    )
    ended = starter.run(ranks, *RUN, *limit, "run.name=r")
    assert ended.codes == [0] * ranks, ended.output
    results = starter.results("r")
    step = results.summary["steps"]
    assert 0 < step < 1000000
    assert results.summary["ended_by"] == "time_limit"
    assert {line["split"]: line["step"] for line in results.metrics()} == {"train": step, "eval": step, "test": step}
    assert (results.folder / f"checkpoints/step_{step:08d}").is_dir()
    again = starter.run(ranks, *RUN, *limit, "run.name=r")
    assert again.codes == [0] * ranks
    assert f"finished already: {step} steps, ended by time_limit" in again.output
    (results.folder / "summary.json").unlink()  # as if it had been killed before that was written
    assert starter.run(ranks, *RUN, *limit, "run.name=r").codes == [0] * ranks
    assert (results.summary["steps"], results.summary["ended_by"]) == (step, "time_limit")


def test_what_a_kill_threw_away_counts(starter: Starter) -> None:
    """Nothing was saved. While a rank stands still no step is made, and the time goes on."""
    limit = (
        "train.time_limit=1:00:00",
        "train.steps=3000",
        "checkpoint.every=null",
        "eval.every=null",
        "optim.lr=0.01",
    )
    world, notes = starter.start(2, *RUN, *limit, "run.name=r"), starter.folder / "runs/r/lease"
    first, second = (notes / f"0000000{start}.seconds" for start in (1, 2))
    until(lambda: starter.results("r").reached(4))
    world.kill(1, with_signal=signal.SIGSTOP)
    before = float(first.read_text())
    until(lambda: float(first.read_text()) > before + 1.5)
    world.kill()
    assert world.wait().codes == [-signal.SIGKILL] * 2
    first.write_text("3599.999\n")
    ended = starter.run(2, *RUN, *limit, "run.name=r")
    assert ended.codes == [0, 0], ended.output
    assert starter.results("r").summary["ended_by"] == "time_limit"
    assert starter.results("r").summary["steps"] < 3000
    assert float(second.read_text()) >= 3600


@pytest.fixture
def leased(tmp_path: Path) -> Path:
    (tmp_path / "lease").mkdir()
    return tmp_path


def test_the_time_of_earlier_starts_counts_and_each_start_makes_a_step(leased: Path) -> None:
    now = [100.0]
    spent = TimeSpent(leased, 2, 2.0, lambda: now[0])
    spent.at_least(50.0)
    progress = Progress(began=0.0, step=7)
    limit = TimeLimit("0:01:00", 60.0, spent, progress)
    now[0] = 111.0
    assert limit.request() is None
    progress.step = 8
    request = limit.request()
    assert request is not None
    assert (request.code, request.why) == (ExitCode.FINISHED, "train.time_limit=0:01:00 has passed")
    now[0] = 109.0
    assert limit.request() is None


def test_each_start_adds_to_the_most_that_those_before_wrote_down(leased: Path) -> None:
    """By a clock that nobody sets, whatever the others' showed; a replaced start that still writes changes nothing."""
    early, late = [1000.0], [5.0]
    first = TimeSpent(leased, 1, 3.0, lambda: early[0])
    assert first.total_s() == 3.0
    early[0] = 1040.0
    first.note()
    second = TimeSpent(leased, 2, 1.0, lambda: late[0])
    second.at_least(20.0)  # all that was saved
    early[0] = 9000.0
    first.note()
    late[0] = 6.5
    assert second.total_s() == 45.5
    (leased / "lease/00000001.seconds").unlink()
    (leased / "lease/00000009.seconds").write_text("inf")
    (leased / "lease/00000008.seconds").symlink_to("/etc/hostname")
    second.note()
    assert TimeSpent(leased, 3, 0.5, lambda: 0.0).total_s() == 46.0
    (leased / "lease").rename(leased / "elsewhere")  # it cannot be written: the run goes on
    assert TimeSpent(leased, 4, 0.5, lambda: 0.0).total_s() == 0.5


def waits(stop: EarlyStop, values: Sequence[float | None]) -> list[int]:
    """How many evaluations were no better, after each of those at steps 10, 11, …"""
    assert stop.metric is not None
    progress, found = Progress(began=0.0), []
    for progress.step, value in enumerate(values, 10):
        results = {} if value is None else {stop.metric.split: {stop.metric.name: value}}
        for _ in range(2):  # as after a restart
            stop.take(results, progress)
        found.append(progress.early_stop.waited)
        assert (stop.reached(progress) is not None) is (found[-1] >= stop.patience and progress.step < stop.last)
    return found


def test_what_is_no_better_by_more_than_min_delta_is_waited_for() -> None:
    stop = EarlyStop(WatchedMetric("eval", "accuracy", Mode.max), patience=3, min_delta=0.125, first=0, last=15)
    assert waits(stop, [0.5, 0.625, 0.75, float("nan"), None, 0.875, 2.0]) == [0, 1, 0, 1, 2, 3, 0]
    assert waits(stop, [None] * 8) == [1, 2, 3, 4, 5, 6, 7, 8]
    assert waits(replace(stop, first=10), [None, None]) == [0, 1]
    less = replace(stop, metric=WatchedMetric("val", "loss", Mode.min), min_delta=0.0)
    assert waits(less, [0.5, 0.5, 0.4, 0.6, 0.39]) == [0, 1, 0, 1, 0]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["early_stop.metric=loss", "eval.every=null"], "eval.every=null … Type eval.every=100"),
        (["early_stop.metric=loss", "eval.every=5", "data.eval=null"], "data.eval=null … Type data.eval="),
        (["early_stop.metric=speed", "eval.every=5"], "Type early_stop.mode=max"),
        (["early_stop.metric=test/loss", "eval.every=5"], "data.test is evaluated once"),
        (["early_stop.patience=3"], "early_stop.patience=3 is set … Type early_stop.metric=loss"),
        (["early_stop.min_delta=0.1"], "early_stop.min_delta=0.1 is set … Type early_stop.metric=loss"),
        (["early_stop.mode=max"], "early_stop.mode=max is set … Type early_stop.metric=loss"),
        (["early_stop.patience=0"], "early_stop.patience=0 is out of range"),
        (["train.time_limit=90"], "Type train.time_limit=12:00:00"),
        (["train.time_limit='0:00:00'"], "Type train.time_limit=12:00:00"),
        (["train.time_limit=1:75:00"], "Type train.time_limit=12:00:00"),
    ],
)
def test_what_could_not_end_a_run_is_refused_before_training(words: list[str], says: str) -> None:
    with pytest.raises(ConfigError) as refused:
        check(compose(words).config, ranks=1)
    for part in says.split(" … "):
        assert part in str(refused.value)


def test_where_a_metric_ends_the_run_evaluations_are_in_its_name(tmp_path: Path) -> None:
    def name(*words: str) -> object:
        return compose(words).config.run.name

    stop = ("early_stop.metric=loss", "eval.every=5")
    assert name("eval.every=5") == name("eval.every=6") == name()
    assert name(*stop) != name(*stop, "eval.every=6")
    assert name(*stop) != name("eval.every=5")

"""Events, retention, stops and restarts follow the end of a save, not its beginning."""

import signal

import pytest

from phalanx.exit.signals import UNTIL
from phalanx.run_folder.checkpoints import Checkpoints
from tests.ranks import Starter
from tests.train.checkpoint.late_saver import LATE
from tests.train.small_runs import planted, undisturbed_and_killed

TRAINED = ("train.steps=12", "train.epochs=null", "checkpoint.every=4", "checkpoint.keep=1", "log.every=1", LATE)


def run(**options: object) -> tuple[str, ...]:
    return (*planted(**options), *TRAINED)  # type: ignore[arg-type]


@pytest.mark.parametrize("ranks", [1, 2])
def test_events_and_retention_follow_a_save_that_ends_a_step_later(starter: Starter, ranks: int) -> None:
    results = starter.train(ranks, *run(), name="late")
    assert (starter.folder / "notes").read_text().splitlines() == [
        "4 begins: [] after 0 events",
        "4 ends: [] after 0 events",
        "8 begins: [4] after 1 events",
        "8 ends: [4] after 1 events",
        "12 begins: [8] after 2 events",
        "12 ends: [8] after 2 events",
    ]
    assert [event["step"] for event in results.events("checkpoint")] == [4, 8, 12]
    assert Checkpoints(results.folder).steps() == [12]
    assert (
        results.sha256 == starter.train(ranks, *run(), "task._target_=phalanx.tasks.Classification", name="now").sha256
    )


def test_a_save_that_fails_a_step_later_is_no_checkpoint_and_deletes_none(starter: Starter) -> None:
    results = starter.train(2, *run(), "+task.fails=[8]", name="late")
    assert [event["step"] for event in results.events("checkpoint")] == [4, 12]
    assert [(event["step"], event["why"]) for event in results.events("save_failed")] == [(8, "the disk is full")]
    assert "12 begins: [4] after 1 events" in (starter.folder / "notes").read_text().splitlines()


def test_where_the_run_ends_a_save_that_fails_ends_it_so(starter: Starter) -> None:
    ended = starter.run(1, *run(), "+task.fails=[12]", "run.name=late")
    assert ended.codes == [8]
    assert not (starter.results("late").folder / "summary.json").exists()


def test_a_stop_waits_for_the_save_under_way_and_makes_no_second_one(starter: Starter) -> None:
    ended = starter.run(2, *run(), "run.name=late", environ={UNTIL: "4"})
    assert ended.codes == [7, 7], ended.output
    results = starter.results("late")
    told = [(event["event"], event["step"]) for event in results.events() if event["event"] in ("checkpoint", "stop")]
    assert told == [("checkpoint", 4), ("stop", 4)]
    assert Checkpoints(results.folder).steps() == [4]


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_run_that_is_killed_before_a_save_has_ended_continues_from_the_one_before(
    starter: Starter, ranks: int
) -> None:
    """It dies in the step after the eighth, in whose end the save of that one is begun."""
    undisturbed, killed = undisturbed_and_killed(starter, ranks, *run(kill_at=8 * 8))
    assert "8 begins: [4] after 1 events" in (starter.folder / "notes").read_text().splitlines()
    assert [event["step"] for event in killed.events("resume")] == [4]
    assert killed.sha256 == undisturbed.sha256


def test_a_failure_aborts_the_save_that_is_under_way(starter: Starter) -> None:
    """Rank 1 dies after rank 0 has begun to write; the run is given back then, and another start may take it."""
    ended = starter.run(2, *run(kill_at=8 * 8 + 7), "run.name=late")
    assert ended.codes == [1, -signal.SIGKILL], ended.output
    assert (starter.folder / "notes").read_text().splitlines()[-2:] == [
        "8 begins: [4] after 1 events",
        "8 is aborted: [4] after 1 events",
    ]
    assert Checkpoints(starter.results("late").folder).steps() == [4]

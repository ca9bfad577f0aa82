"""A loss or gradient that is not finite on any rank never touches the weights, and training goes on."""

import json
import signal
from typing import Any

import pytest

from phalanx.train.loading.order import Order
from tests.ranks import Results, Starter
from tests.train.faulty_parts import SIGN
from tests.train.small_runs import BATCH, SAMPLES, planted, undisturbed_and_killed

RUN = ("train.steps=12", "checkpoint.every=1")


def hashes(results: Results) -> dict[int, str]:
    """weights_sha256 after each step."""
    manifests = [json.loads(path.read_text()) for path in results.folder.glob("checkpoints/step_*/manifest.json")]
    return {manifest["step"]: manifest["weights_sha256"] for manifest in manifests}


def skips(results: Results) -> list[tuple[int, str, list[int]]]:
    return [(e["skipped_step"], e["not_finite"], e["indices"]) for e in results.events("skip")]


def samples(step: int) -> list[int]:
    """Indices, in the data set, of the samples of a step of the first epoch; steps count from 1."""
    found: list[int] = Order(SAMPLES, seed=0).indices(position(step, 0), position(step + 1, 0)).tolist()
    return found


def position(step: int, sample: int) -> int:
    """Of one sample of a batch; steps count from 1."""
    return (step - 1) * BATCH + sample


def lines(results: Results) -> dict[int, dict[str, Any]]:
    return {line["step"]: line for line in results.metrics("train")}


@pytest.mark.parametrize(("ranks", "sample", "value"), [(1, 0, "nan"), (2, 7, "nan"), (2, 0, "inf"), (3, 7, "-inf")])
def test_a_loss_that_is_not_finite_on_one_rank_skips_the_step_on_all(
    starter: Starter, ranks: int, sample: int, value: str
) -> None:
    run = (*planted(spoilt=[position(6, sample)], value=f"'{value}'"), *RUN)
    results = starter.train(ranks, *run, "train.ema_decay=0.9", name="run")
    assert skips(results) == [(6, "loss", samples(6))]
    after = hashes(results)
    assert after[6] == after[5], "the skipped step left the weights alone"
    assert len(set(after.values())) == 11, "and every other step changed them"
    assert results.summary["skipped"] == 1
    rates = {step: line["lr"] / 1e-3 for step, line in lines(results).items()}
    assert rates[4] == pytest.approx(1 - 3 / 12), "the rate of the fourth step"
    assert rates[8] == pytest.approx(1 - 6 / 12), "the skipped step did not move the rate"
    assert lines(results)[8]["skipped"] == 1
    assert all(line["loss"] < 10 for line in lines(results).values()), "the means are over the steps that counted"


@pytest.mark.parametrize(("task", "reason"), [("Steep", "gradient"), ("Endless", "loss")])
def test_either_of_loss_and_gradient_is_enough_and_they_are_told_apart(
    starter: Starter, task: str, reason: str
) -> None:
    """On one rank: the other learns of it in the reduced gradient."""
    run = (*planted(spoilt=[position(3, 5)], value=f"'{SIGN}'"), *RUN, f"task._target_=tests.train.faulty_parts.{task}")
    results = starter.train(2, *run, name="run")
    assert skips(results) == [(3, reason, samples(3))]
    assert hashes(results)[3] == hashes(results)[2]


def test_one_micro_batch_of_several_is_enough(starter: Starter) -> None:
    """Of the first rank in step 3, of the second in step 5, of the last in step 7."""
    spoilt = {3: 0, 5: 3, 7: 7}
    run = planted(spoilt=[position(step, sample) for step, sample in spoilt.items()])
    results = starter.train(3, *run, *RUN, "train.micro_batch=1", "train.steps=8", name="run")
    assert skips(results) == [(step, "loss", samples(step)) for step in spoilt]
    after = hashes(results)
    for step in range(2, 9):
        assert (after[step] == after[step - 1]) == (step in spoilt), step


def test_a_loss_that_stays_so_ends_the_run_with_code_4_one_message_and_the_last_checkpoint(starter: Starter) -> None:
    run = (*planted(spoilt=range(position(7, 0), 96)), "train.steps=40", "train.max_skips=3")
    ended = starter.run(2, *run, "log.every=2", "checkpoint.every=4", "run.name=run")
    assert ended.codes == [4, 4], ended.output
    assert ended.output.count("error: 3 steps in a row") == 1, "one rank speaks for all"
    assert "3 steps in a row up to step 9" in ended.output
    assert f"indices {', '.join(map(str, samples(9)))};" in ended.output
    assert "Traceback" not in ended.output
    results = starter.results("run")
    assert sorted(hashes(results)) == [4, 8]
    assert [step for step, _, _ in skips(results)] == [7, 8, 9]
    assert sorted(lines(results)) == [2, 4, 6, 8], "what was logged before stays"
    assert lines(results)[8]["loss"] is None
    again = starter.run(2, *run, "log.every=40", "checkpoint.every=40", "run.name=run")
    assert again.codes == [4, 4], "the same command comes to the same end"
    assert "3 steps in a row up to step 9" in again.output
    assert sorted(hashes(results)) == [4, 8]
    assert [event["step"] for event in results.events("error")] == [10, 24], "long before the next line is due"


@pytest.mark.parametrize("ranks", [2, 3])
def test_restart_amid_skipped_steps_ends_with_the_same_bits_and_the_same_count(starter: Starter, ranks: int) -> None:
    """Checkpoints stand where records wait for their line, so records of skipped steps go through the file."""
    spoilt = [position(5, 1), position(6, 6), position(7, 3)]
    rest = (*RUN, "checkpoint.every=6", "train.max_skips=4")
    run = (*planted(spoilt=spoilt, kill_at=position(8, 7)), *rest)
    undisturbed, killed = undisturbed_and_killed(starter, ranks, *run)
    assert killed.sha256 == undisturbed.sha256
    assert killed.timeless() == undisturbed.timeless()
    assert killed.summary["skipped"] == undisturbed.summary["skipped"] == 3
    assert killed.summary["skipped_steps"] == undisturbed.summary["skipped_steps"] == [5, 6, 7]


def test_skips_in_a_row_are_counted_over_a_restart(starter: Starter) -> None:
    spoilt = [position(5, 1), position(6, 6), position(7, 3)]
    run = (*planted(spoilt=spoilt, kill_at=position(7, 0)), *RUN, "checkpoint.every=6", "train.max_skips=3")
    ended = starter.run(2, *run, "run.name=run")
    assert -signal.SIGKILL in ended.codes, ended.output
    ended = starter.run(2, *run, "run.name=run")
    assert ended.codes == [4, 4], ended.output
    assert "3 steps in a row up to step 7" in ended.output

"""Which run of a sweep is next and what becomes of each trial, whoever is killed in between. No run is trained here."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from phalanx.common.files import write_json
from phalanx.compose.compose import Composed, compose
from phalanx.compose.former_digests import former_digests
from phalanx.config.schema import SamplerName
from phalanx.exit.codes import ConfigError
from phalanx.launch.search.optuna_study import Search
from phalanx.launch.search.space import parse_space
from phalanx.launch.sweep.trial import TrialRun
from phalanx.launch.sweep.trial_queue import TrialQueue
from tests.launch.sweep.queues import ASHA, BASE, composed, settings, start, states, train


class Killed(Exception):  # noqa: N818
    """Stands for the end of the process."""


def killed_at(search: Search, method: str, monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    """The process ends when it has called a method of Optuna's storage so often."""
    storage, calls = search.study._storage, 0
    call = getattr(storage, method)

    def die(*given: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls > at:
            raise Killed
        return call(*given, **named)

    monkeypatch.setattr(storage, method, die)


@pytest.mark.parametrize("at", range(3))
def test_a_trial_whose_last_score_is_noted_is_complete_whenever_its_sweep_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    with start(tmp_path) as queue:
        trial_run = queue.take()
        assert trial_run is not None
        train(queue, trial_run, 0.5)
        killed_at(queue.search, "set_trial_user_attr" if at < 2 else "set_trial_state_values", monkeypatch, at % 2)
        with pytest.raises(Killed):
            queue.records.record_score(trial_run)
    monkeypatch.undo()
    with start(tmp_path) as queue:
        while (trial_run := queue.take()) is not None:
            train(queue, trial_run, 1.0)
            queue.records.record_score(trial_run)
            queue.release(trial_run)
        assert queue.is_over()
        queue.prune_paused()
        assert set(states(queue).values()) == {"complete"}
        assert queue.search.trials()[0].value == 0.5


@pytest.mark.parametrize("at", range(3))
def test_a_trial_that_failed_has_failed_or_is_tried_again_whenever_its_sweep_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    with start(tmp_path) as queue:
        trial_run = queue.take()
        assert trial_run is not None
        killed_at(queue.search, "set_trial_user_attr" if at < 2 else "set_trial_state_values", monkeypatch, at % 2)
        with pytest.raises(Killed):
            queue.search.fail(trial_run.trial, "a bug", out_of_memory=False)
    monkeypatch.undo()
    with start(tmp_path) as queue:
        again = queue.take()
        assert again is not None
        if at == 2:
            assert (again.trial, states(queue)[0]) == (1, "fail")
        else:
            assert (again.trial, states(queue)[0]) == (0, "running")


def test_nothing_is_pruned_where_nothing_prunes(tmp_path: Path) -> None:
    """Not even a run that was still held when a run was asked for, and no more when it was asked whether all is over."""
    with start(tmp_path) as queue:
        for _ in range(9):
            assert queue.take() is not None
        queue.release(TrialRun(8, 0))
        queue.prune_paused()
        assert set(states(queue).values()) == {"running"}
        for trial in range(8):
            queue.search.complete(trial, [1.0])
            queue.release(TrialRun(trial, 0))
        assert not queue.is_over(), "trial 8 can be taken"


def test_a_turn_in_which_nothing_is_written_asks_the_storage_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with start(tmp_path, ASHA, settings(trials=3)) as queue, start(tmp_path, ASHA, settings(trials=3)) as other:
        for _ in range(3):
            assert other.take() is not None
        storage, calls = queue.search.study._storage, 0
        answer = storage.get_all_trials

        def counted(*given: Any, **named: Any) -> Any:
            nonlocal calls
            calls += 1
            return answer(*given, **named)

        monkeypatch.setattr(storage, "get_all_trials", counted)
        assert queue.take() is None
        assert calls == 1
        other.search.complete(0, [1.0])
        assert [trial.value for trial in queue.search.trials()] == [1.0, None, None], "another's turn came between"


def test_a_folder_of_another_point_is_no_result(tmp_path: Path) -> None:
    """As where the journal is gone, and another one or another storage begins over old folders."""
    with start(tmp_path) as queue:
        train(queue, TrialRun(0, 0), 0.5, composed(["optim.lr=1"]).config)
        assert queue.take() == TrialRun(1, 0), "its own"
        assert states(queue)[0] == "complete"
        train(queue, TrialRun(2, 0), 0.1, composed(["optim.lr=77"]).config)
        with pytest.raises(ConfigError, match="0002 holds a finished run of another config than trial 2"):
            queue.take()
        assert states(queue)[2] == "running"


def test_a_run_that_an_earlier_version_trained_is_a_points_result(tmp_path: Path) -> None:
    with start(tmp_path) as queue:
        config = composed(["optim.lr=1"]).config
        train(queue, TrialRun(0, 0), 0.5, config)
        manifest = queue.plan.run(TrialRun(0, 0)) / "checkpoints/step_00000008/manifest.json"
        write_json(manifest, {"config_digest": former_digests(config)[0]})
        assert queue.take() == TrialRun(1, 0)
        assert states(queue)[0] == "complete"


def test_a_folder_without_checkpoints_is_known_by_its_config(tmp_path: Path) -> None:
    from phalanx.compose.resolved import to_yaml

    with start(tmp_path, made=compose) as queue:
        for trial, lr in enumerate((1, 5)):
            run = queue.plan.run(TrialRun(trial, 0))
            run.mkdir()
            (run / "resolved.yaml").write_text(to_yaml(compose([f"optim.lr={lr}"]).plain))
            write_json(run / "summary.json", {"eval": {"loss": 0.5}})
        with pytest.raises(ConfigError, match="0001 holds a finished run of another config"):
            queue.take()
        assert states(queue)[0] == "complete"


def test_a_run_of_another_element_is_a_points_result_though_each_has_its_data_elsewhere(tmp_path: Path) -> None:
    from phalanx.compose.resolved import to_yaml

    where = "data.train.root"
    for left, lr, own in (([where], 1, True), ([], 1, False), ([where], 5, False)):
        folder = tmp_path / f"{len(left)}{lr}"
        space = parse_space(("data=mnist", f"{where}=/here", "optim.lr=1,2"), lambda group: ())
        with start(folder, space=space, made=compose, left=left) as queue:
            run = queue.plan.run(TrialRun(0, 0))
            run.mkdir()
            there = compose(["data=mnist", f"{where}=/there", "data.eval.root=/here", f"optim.lr={lr}"])
            (run / "resolved.yaml").write_text(to_yaml(there.plain))
            write_json(run / "summary.json", {"eval": {"loss": 0.5}})
            if own:
                assert queue.take() == TrialRun(1, 0)
            else:
                with pytest.raises(ConfigError, match="0000 holds a finished run of another config"):
                    queue.take()


def evaluate(queue: TrialQueue, trial_run: TrialRun, until: int, value: float, every: int = 10) -> None:
    for step in range(every, until + 1, every):
        if step not in queue.search.trials()[trial_run.trial].intermediate_values:
            queue.search.report(trial_run.trial, step, value)


def run_to_rungs(queue: TrialQueue, values: Mapping[int, float], steps: int) -> dict[int, int]:
    """Take runs to their rungs until nothing is left; how far each trial came. Raises where one is begun for ever."""
    assert queue.plan.asha is not None
    for _ in range(40):
        if (trial_run := queue.take()) is None:
            assert queue.is_over()
            queue.prune_paused()
            return {trial.number: max(trial.intermediate_values) for trial in queue.search.trials()}
        until = min(steps, queue.plan.asha.next_step(queue.records.rung_state(trial_run.trial)))
        every = queue.records.composed(trial_run).config.eval.every
        assert every is not None
        evaluate(queue, trial_run, until, values[trial_run.trial], every)
        if until >= steps:
            train(queue, trial_run, values[trial_run.trial])
            queue.records.record_score(trial_run)
        queue.release(trial_run)
    raise AssertionError("it never ends")


def test_halving_promotes_exactly_one_of_eta_where_all_are_equal(tmp_path: Path) -> None:
    with start(tmp_path, ASHA, made=lambda words: composed(words, eval=_every(10))) as queue:
        came = run_to_rungs(queue, dict.fromkeys(range(9), 0.5), 90)
        assert sorted(came.values()) == [10] * 6 + [30] * 2 + [90]
        assert sorted(states(queue).values()) == ["complete"] + ["pruned"] * 8


def test_halving_trains_nothing_further_whose_score_is_no_number(tmp_path: Path) -> None:
    nan = float("inf")
    with start(tmp_path, ASHA, made=lambda words: composed(words, eval=_every(10))) as queue:
        came = run_to_rungs(queue, {**dict.fromkeys(range(9), nan), 4: 0.5}, 90)
        assert [trial for trial, step in came.items() if step > 10] == [4]
    (tmp_path / "none").mkdir()
    with start(tmp_path / "none", ASHA, made=lambda words: composed(words, eval=_every(10))) as queue:
        assert set(run_to_rungs(queue, dict.fromkeys(range(9), nan), 90).values()) == {10}
        assert set(states(queue).values()) == {"pruned"}


def test_halving_trains_the_best_to_its_end_also_where_it_was_paused_after_another_process_had_asked(
    tmp_path: Path,
) -> None:
    def here_too() -> AbstractContextManager[TrialQueue]:
        return start(tmp_path, ASHA, settings(trials=2), made=lambda words: composed(words, eval=_every(10)))

    with here_too() as asking, here_too() as pausing:
        worse, best = asking.take(), pausing.take()
        assert worse is not None
        assert best is not None
        evaluate(asking, worse, 10, 0.5)
        asking.release(worse)
        assert asking.take() is None, "the one that is under way may be better"
        evaluate(pausing, best, 10, 0.1)
        pausing.release(best)
        assert not asking.is_over()
        assert asking.take() == best
        assert not pausing.is_over(), "it is under way"


def test_halving_ends_where_trials_are_evaluated_at_other_steps(tmp_path: Path) -> None:
    def made(words: Any) -> Any:
        first = composed(words)
        return composed(words, eval=_every([7, 10, 25][int(first.config.optim["lr"]) % 3]))

    with start(tmp_path, ASHA, made=made) as queue:
        came = run_to_rungs(queue, {trial: float(trial) for trial in range(9)}, 100)
        assert sorted(came.values())[-1] == 100
        assert "complete" in states(queue).values()
        assert set(states(queue).values()) == {"complete", "pruned"}


def _every(steps: int) -> Any:
    return replace(BASE.config.eval, every=steps)


def test_a_trial_that_a_person_stopped_stays_open_until_the_command_is_typed_again(tmp_path: Path) -> None:
    config = settings(trials=2)
    with start(tmp_path, config=config) as queue:
        first, second = queue.take(), queue.take()
        assert first is not None
        assert second is not None
        queue.mark_stopped(first)
        queue.release(first)
        assert queue.take() is None
        queue.search.complete(second.trial, [1.0])
        queue.release(second)
        assert queue.is_over()
        queue.prune_paused()
        assert (queue.stopped_trials(), queue.states()) == ([0], {0: "stopped"})
    with start(tmp_path, config=config) as queue:
        assert queue.take() == first


@pytest.mark.parametrize("sampler", ["grid", "random"])
def test_what_is_enqueued_in_the_study_is_trained_besides(tmp_path: Path, sampler: str) -> None:
    config = settings(sampler=SamplerName[sampler], trials=3)
    with start(tmp_path, config=config) as queue:
        assert queue.take() == TrialRun(0, 0)
        queue.search.study.enqueue_trial({"optim.lr": 7.0})
        queue.search.study.enqueue_trial({"optim.lr": "9"})
        queue.search.study.enqueue_trial({"optim.lr": 77})
        queue.search.study.enqueue_trial({"lr": 1})
        assert set(queue.states().values()) == {"running", "queued"}
    with start(tmp_path, config=config) as queue:
        taken = []
        while (trial_run := queue.take()) is not None:
            taken.append((trial_run.trial, queue.records.words(trial_run)[0]))
        assert len(queue.search.trials()) == 7
        assert [queue.search.words(trial) for trial in (1, 2)] == [["optim.lr=7"], ["optim.lr=9"]]
        if sampler == "grid":  # where nothing is drawn twice
            assert [dict(taken)[trial] for trial in (0, 5, 6)] == ["optim.lr=1", "optim.lr=2", "optim.lr=3"]
        assert states(queue)[3] == states(queue)[4] == "fail"
        assert "lr is not swept, but optim.lr" in queue.search.attr(4, "error", "")


@pytest.mark.parametrize("at", range(3))
def test_a_trial_that_was_asked_for_and_not_drawn_when_its_sweep_was_killed_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    space = parse_space(("optim.lr=1,2,3", "seed=4,5"), lambda group: ())
    with start(tmp_path, space=space) as queue:
        killed_at(queue.search, "set_trial_param", monkeypatch, at)
        with pytest.raises(Killed):
            [queue.take() for _ in range(2)]
    monkeypatch.undo()
    with start(tmp_path, space=space) as queue:
        taken = []
        while (trial_run := queue.take()) is not None:
            taken.append(tuple(queue.records.words(trial_run)[:2]))
        assert len(taken) == len(set(taken)) == 6


def test_a_point_that_does_not_compose_fails_alone(tmp_path: Path) -> None:
    def made(words: Any) -> Composed:
        found = composed(words)
        if found.config.optim["lr"] == 2:
            raise ConfigError("optim.lr=2 does not fit")
        return found

    with start(tmp_path, made=made, config=settings(trials=3)) as queue:
        assert [queue.take() for _ in range(3)] == [TrialRun(0, 0), TrialRun(2, 0), None]
        assert states(queue)[1] == "fail"


def test_a_point_that_is_the_same_run_as_another_came_as_far(tmp_path: Path) -> None:
    with start(tmp_path, space=parse_space(("optim.lr=1,1.0,1e0",), lambda group: ())) as queue:
        trial_run = queue.take()
        assert trial_run is not None
        assert queue.take() is None
        evaluate(queue, trial_run, 20, 0.5)
        train(queue, trial_run, 0.5)
        queue.records.record_score(trial_run)
        queue.release(trial_run)
        assert queue.take() is None
        assert [trial.intermediate_values for trial in queue.search.trials()] == [{10: 0.5, 20: 0.5}] * 2
        assert set(states(queue).values()) == {"complete"}

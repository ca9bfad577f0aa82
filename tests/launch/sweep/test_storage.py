"""A sweep whose trials are on record in a database that other people restart."""

import signal
import threading
from typing import Any, cast

import optuna
import pytest
from optuna.exceptions import StorageInternalError
from optuna.storages import get_storage
from optuna.study import Study

from phalanx.launch.search.storage_retry import StorageUnavailable, retry_calls
from tests.launch.sweep.postgres import postgres
from tests.launch.sweep.sweeper import SHORT, Sweeper
from tests.paced_task import TASK, Pace
from tests.ranks import until


def test_a_database_that_restarts_costs_no_trial_anything(sweeper: Sweeper) -> None:
    """It goes away while two trials train, which end meanwhile, and is back for those that are left."""
    pace = Pace(after=6, gate=str(sweeper.folder / "gate"))
    with postgres() as database:
        words = (*SHORT, TASK, "optim.lr=1e-3,3e-3,1e-2", "sweep.slots=2", f"sweep.storage='{database.url}'")
        process = sweeper.start(*words, environ=pace.environ())
        until(lambda: all(sweeper.results(trial).reached(4) for trial in (0, 1)), 100.0)
        database.stop()
        pace.open()
        until(lambda: all((sweeper.results(trial).folder / "summary.json").exists() for trial in (0, 1)), 100.0)
        assert process.poll() is None
        database.start()
        output, errors = process.communicate(timeout=100)
        assert process.returncode == 0, output + errors
        assert sweeper.states() == ["complete"] * 3
        assert sweeper.starts() == {name: ["start"] for name in ("0000", "0001", "0002")}


@pytest.fixture
def study(monkeypatch: pytest.MonkeyPatch) -> Study:
    monkeypatch.setattr("phalanx.launch.search.storage_retry._RETRY_EVERY_S", 0.01)
    return optuna.create_study(storage=get_storage("sqlite://"))


def test_a_call_is_made_again_until_it_is_answered(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also one that was heard, where only the answer got lost."""
    backend, left = cast("Any", study._storage)._backend, iter(range(2))
    tell = backend.set_trial_state_values

    def deaf(*given: Any, **named: Any) -> Any:
        if next(left, None) is None:
            return tell(*given, **named)
        tell(*given, **named)
        raise StorageInternalError("server closed the connection unexpectedly")

    retry_calls(study._storage, "sqlite://", 60.0)
    trial = study.ask()
    monkeypatch.setattr(backend, "set_trial_state_values", deaf)
    study.tell(trial, 1.0)
    assert [(each.number, each.value) for each in study.trials] == [(0, 1.0)]


def test_nobody_waits_for_a_storage_for_ever_or_past_a_signal(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: Any, **__: Any) -> Any:
        raise StorageInternalError("x") from OSError("connection refused")

    url = "postgresql://me:hunter2hunter2@host/db"
    retry_calls(study._storage, url, 0.0)
    monkeypatch.setattr(cast("Any", study._storage)._backend, "get_study_user_attrs", away)
    with pytest.raises(StorageUnavailable, match="has not answered for 0 s: connection refused") as told:
        study._storage.get_study_user_attrs(0)
    assert "hunter2" not in str(told.value)
    retry_calls(study._storage, url, 60.0)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})
    try:
        signal.pthread_kill(threading.get_ident(), signal.SIGUSR2)  # another thread would not hold it back
        with pytest.raises(StorageUnavailable):
            study._storage.get_study_user_attrs(0)
    finally:
        signal.sigwait({signal.SIGUSR2})
        signal.pthread_sigmask(signal.SIG_SETMASK, before)

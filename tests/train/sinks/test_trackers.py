"""What trackers are given is what people expect to find there, and no secret; a sweep's trials are found together."""

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

from phalanx.compose.compose import compose
from phalanx.config.limits import check
from phalanx.config.schema import CheckpointConfig
from phalanx.exit.codes import ConfigError
from phalanx.launch.doctor.checks.tracker_server import TrackerServer
from phalanx.launch.doctor.finding import Verdict
from phalanx.launch.search.experiment import experiment
from phalanx.launch.search.spec import sweep_spec
from phalanx.launch.sweep.trial import plan_of
from phalanx.train.sinks.open import check_sinks
from phalanx.train.sinks.scalars import scalars
from phalanx.train.sinks.trackers.attached_files import attached_files
from phalanx.train.sinks.trackers.best_values import best_so_far
from tests.launch.doctor.findings import ranks_on
from tests.ranks import free_port

ENABLED = ("mlflow.enabled=true", "trackio.enabled=true")


def test_charts_are_named_for_their_split_and_what_is_of_the_run_stands_apart() -> None:
    line = {
        "step": 3,
        "split": "train",
        "time": 1.0,
        "loss": 1.0,
        "lr": 0.1,
        "lr/head": 0.2,
        "epoch": 0.5,
        "note": None,
    }
    line |= {"samples_per_s": 9.0, "data_wait_s": 0.1, "memory_gib": 2.0, "grad_norm": 3.0}
    assert list(scalars(line)) == [
        *("train/loss", "lr", "lr/head", "epoch", "speed/samples_per_s", "speed/data_wait_s", "system/memory_gib"),
        "train/grad_norm",
    ]
    assert list(scalars({"step": 3, "split": "val", "time": 1.0, "accuracy": 0.5, "lr": 1.0})) == [
        "val/accuracy",
        "val/lr",
    ]


def test_the_best_values_are_by_direction_and_over_all_starts(tmp_path: Path) -> None:
    def line(split: str, **values: float) -> dict[str, Any]:
        return {"step": 1, "split": split, "time": 1.0, **values}

    before = [line("val", loss=0.5, accuracy=0.9), line("train", loss=0.1), line("val", loss=0.6, accuracy=0.95)]
    lines = [json.dumps(each, separators=(",", ":")) + "\n" for each in before]
    (tmp_path / "metrics.jsonl").write_text("".join(lines))
    asked = compose(["checkpoint.best_metric=val/gain", "checkpoint.best_mode=min", "data.eval=null"]).config.checkpoint
    assert isinstance(asked, CheckpointConfig)
    best = best_so_far(asked, tmp_path)
    assert best.take(line("train", loss=0.01)) == {}
    assert best.take(line("val", loss=0.55, accuracy=0.94)) == {}
    assert best.take(line("val", loss=0.4, accuracy=float("nan"), gain=3, other=1)) == {
        "best/val/loss": 0.4,
        "best/val/gain": 3,
    }
    assert best.take(line("val", gain=4)) == {}
    assert best.take(line("test", loss=0.7)) == {"best/test/loss": 0.7}, "another split"


@pytest.mark.parametrize(
    ("diff", "files"),
    [
        ("+lr = 3\n", {"resolved.yaml", "environment.json", "diff.patch"}),
        ("+password = [redacted]\n", {"resolved.yaml", "environment.json"}),
        (None, {"resolved.yaml", "environment.json"}),
    ],
)
def test_the_diff_of_the_code_is_attached_where_no_secret_was_in_it(
    tmp_path: Path, diff: str | None, files: set[str]
) -> None:
    (tmp_path / "resolved.yaml").write_text("seed: 0\n")
    (tmp_path / "environment.json").write_text(json.dumps({"git": {"commit": "c0ffee", "diff": diff}}))
    found = attached_files(tmp_path)
    assert found.keys() == files
    assert json.loads(found["environment.json"]) == {"git": {"commit": "c0ffee"}}
    assert found.get("diff.patch") in (None, diff)


@pytest.mark.parametrize("name", ["mlflow", "trackio"])
def test_a_package_that_is_missing_is_said_before_there_is_a_run(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda wanted: None)
    with pytest.raises(ConfigError, match=rf"no package {name}\. Type: pip install 'phalanx\[{name}\]'"):
        check_sinks(compose([f"{name}.enabled=true"]).config, {})


@pytest.mark.parametrize("word", [*ENABLED, "+sinks.mine._target_=mypkg.Mine"])
def test_the_other_ranks_wait_longer_than_a_tracker_takes_to_finish(word: str) -> None:
    with pytest.raises(ConfigError, match=r"world.timeout_s=30 is not more than the longest wait.*world.timeout_s=60"):
        check(compose([word, "wandb.mode=disabled", "world.timeout_s=30"]).config, 2)


def test_trials_of_a_sweep_are_an_experiment_of_mlflow_and_a_project_of_trackio(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def shared(*words: str) -> str:
        return " ".join(plan_of(sweep_spec(["optim.lr=1,2", "run.name=mine", "sweep=grid", *words]), 1).shared)

    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)
    assert 'mlflow.experiment="mine" trackio.project="mine"' in shared(*ENABLED)
    assert "mlflow" not in shared()
    assert "mlflow.experiment" not in shared("mlflow.enabled=true", "mlflow.experiment=theirs")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "theirs")
    assert "mlflow.experiment" not in shared("mlflow.enabled=true")


def test_trackers_are_no_part_of_a_best_point() -> None:
    words = ["optim.lr=0.1", *ENABLED, "mlflow.uri=http://host", "+sinks.mine._target_=mypkg.Mine"]
    text = experiment(words, "best")
    assert "lr: 0.1" in text
    assert not any(word in text for word in ("mlflow", "trackio", "sinks"))


def test_doctor_says_whether_the_server_of_mlflow_answers_and_not_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    check, ranks = TrackerServer("MLflow", "MLFLOW_TRACKING_URI"), ranks_on("a")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert check.judge(ranks, [check.measure(ranks)])[0].verdict is Verdict.PASS
    port = free_port()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:hunter22@127.0.0.1:{port}/api?token=hunter22")
    (found,) = check.judge(ranks, [check.measure(ranks)])
    assert found.verdict is Verdict.FAIL
    assert f"http://127.0.0.1:{port}/api cannot be reached from a: " in found.measured
    assert "hunter22" not in str(found)

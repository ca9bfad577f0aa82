"""MLflow and trackio, the real ones: a run is one run there over a kill and a restart, and no secret gets out."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from phalanx.config.schema import MlflowConfig
from phalanx.train.sinks.trackers import mlflow_tracker
from phalanx.train.sinks.trackers.best_values import BestValues
from phalanx.train.sinks.trackers.mlflow_tracker import MLflow
from tests.libraries.seen_data import SEEN
from tests.ranks import Results, Starter, free_port, until
from tests.train.small_runs import planted

pytestmark = pytest.mark.zoo

PASSWORD, TOKEN = "hunter2-of-the-address", "0123456789abcdef-token"
EVALUATED = ("data.eval._target_=tests.train.faulty_parts.Planted", "~data.eval.split", "+data.eval.samples=19")
RUN = (
    "data.train._target_=tests.libraries.seen_data.KilledOnceSeen",
    *(word for word in planted(samples=512, kill_at=8 * 37) if not word.startswith(("data.train._t", "data.eval"))),
    *EVALUATED,
    *("train.steps=60", "train.epochs=null", "log.every=2", "eval.every=10", "checkpoint.every=10"),
    *("checkpoint.best_metric=accuracy", "data.prefetch=1"),
    *("~task", "+task={_target_: tests.zoo.shown.Showing, classes: 10, label_smoothing: 0.0}"),
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a real `mlflow server` on the loopback, which keeps files, too."""
    folder, port = tmp_path_factory.mktemp("mlflow"), free_port()
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{folder}/runs.db", "--artifacts-destination", str(folder / "files")]
    # A server that runs jobs leaves their queues in /dev/shm.
    environ = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, env=environ, stdout=log, stderr=log, start_new_session=True)
    address = f"127.0.0.1:{port}"

    def answers() -> bool:
        assert process.poll() is None, (folder / "log").read_text()
        with suppress(OSError):
            return bool(urlopen(f"http://{address}/health", timeout=5).read() == b"OK")
        return False

    until(answers, 120)
    yield address
    os.killpg(process.pid, signal.SIGKILL)  # of its own session: it has workers
    process.wait()


def killed_once_seen(starter: Starter, environ: dict[str, str], *words: str, seen: Callable[[], bool]) -> Results:
    """A run of two ranks, one of which kills itself after step 36 once `seen` says so, and whose command is typed again."""
    world = starter.start(2, *RUN, *words, "run.name=seen", environ=environ)
    until(lambda: starter.results("seen").reached(34) and seen())
    assert PASSWORD.encode() not in command_lines()
    (starter.folder / SEEN).touch()
    assert -signal.SIGKILL in world.wait().codes
    again = starter.run(2, *RUN, *words, "run.name=seen", environ=environ)
    assert again.codes == [0, 0], again.output
    assert "goes on" not in again.output, "which a tracker says that takes no more"
    return starter.results("seen")


def command_lines() -> bytes:
    found = b""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            found += path.read_bytes()
    return found


def check_no_secret(folder: Path) -> None:
    for file in (path for path in folder.rglob("*") if path.is_file()):
        for secret in (PASSWORD, TOKEN):
            assert secret.encode() not in file.read_bytes(), file


def test_mlflow_has_one_run_over_a_kill_and_each_step_once(starter: Starter, server: str, tmp_path: Path) -> None:
    from mlflow import MlflowClient

    client, known = MlflowClient(f"http://{server}"), starter.folder / "runs" / "seen" / "mlflow" / "run_id"

    def metrics() -> dict[str, float]:
        found: dict[str, float] = client.get_run(known.read_text()).data.metrics
        return found

    run = killed_once_seen(
        starter,
        {"HOME": str(tmp_path / "home"), "MLFLOW_TRACKING_TOKEN": TOKEN},
        *("mlflow.enabled=true", f"mlflow.uri='http://me:{PASSWORD}@{server}'", "mlflow.experiment=digits"),
        seen=lambda: known.exists() and known.read_text() != "" and "best/eval/loss" in metrics(),
    )
    (found,) = client.search_runs([client.get_experiment_by_name("digits").experiment_id])
    assert (found.info.run_id, found.info.status, found.info.run_name) == (known.read_text(), "FINISHED", "seen")

    def history(name: str) -> list[tuple[int, float]]:
        return [(point.step, point.value) for point in client.get_metric_history(found.info.run_id, name)]

    train, evaluations = run.metrics("train"), run.metrics("eval")
    assert history("train/loss") == [(line["step"], line["loss"]) for line in train]
    assert history("lr") == [(line["step"], line["lr"]) for line in train]
    assert history("eval/accuracy") == [(line["step"], line["accuracy"]) for line in evaluations]
    assert {"epoch", "train/grad_norm", "speed/samples_per_s", "goodput"} < found.data.metrics.keys()
    assert found.data.metrics["best/eval/accuracy"] == max(line["accuracy"] for line in evaluations)
    assert found.data.metrics["best/eval/loss"] == min(line["loss"] for line in evaluations)
    assert found.data.params["model.hidden"] == "[8]"
    assert found.data.params["train.steps"] == "60"
    assert found.data.params["mlflow.uri"] == f"http://me:[redacted]@{server}"
    assert found.data.tags["weights_sha256"] == run.sha256
    commit = json.loads((run.folder / "environment.json").read_text())["git"]["commit"]
    assert found.data.tags["mlflow.source.git.commit"] == commit
    attached = {file.path for file in client.list_artifacts(found.info.run_id)}
    assert attached >= {"resolved.yaml", "environment.json"}
    kept = Path(client.download_artifacts(found.info.run_id, "resolved.yaml", str(tmp_path)))
    assert kept.read_text() == (run.folder / "resolved.yaml").read_text()
    files = ("picture.png", "confusion_matrix.png", "answers.csv", "note.txt", "sound.wav")
    assert {file.path for file in client.list_artifacts(found.info.run_id, "shown/eval_step_00000060")} == {
        f"shown/eval_step_00000060/{name}" for name in files
    }
    assert any("picture+step+60" in file.path for file in client.list_artifacts(found.info.run_id, "images"))
    check_no_secret(starter.folder)


def test_two_starts_at_once_have_one_run(server: str, tmp_path: Path) -> None:
    """As where a start dies and is started again while its tracker still looks for the run."""
    from mlflow import MlflowClient

    asked = MlflowConfig(enabled=True, uri=f"http://{server}", experiment="twice")
    given: dict[str, Any] = {"environ": {}, "config": {"git_commit": None}, "files": {}}
    sinks = [MLflow(tmp_path, asked, **given, best=BestValues({})) for _ in range(2)]
    for split, sink in zip(("train", "val"), sinks, strict=True):  # of one chart, what is behind the other is dropped
        sink.write({"step": 1, "split": split, "time": 1.0, "loss": 0.5})
    for sink in sinks:
        sink.close({})
    client = MlflowClient(f"http://{server}")
    (found,) = client.search_runs([client.get_experiment_by_name("twice").experiment_id])
    for chart in ("train/loss", "val/loss"):
        assert len(client.get_metric_history(found.info.run_id, chart)) == 1


def test_a_server_that_never_answers_holds_up_nothing_and_is_one_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mlflow_tracker, "FINISH_S", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as wall:
        wall.settimeout(60)
        asked = MlflowConfig(enabled=True, uri=f"http://127.0.0.1:{wall.getsockname()[1]}", experiment=None)
        given: dict[str, Any] = {"environ": {}, "config": {"git_commit": None}, "files": {}, "best": BestValues({})}
        sink = MLflow(tmp_path, asked, **given)
        assert sink._process is not None
        process = sink._process.pid
        wall.accept()[0].close()  # by now it is asking, and will ask again
        for step in range(1, 1000):
            sink.write({"step": step, "split": "train", "time": 1.0, "loss": 0.5})
        sink.close({})
    assert [record.message for record in caplog.records] == [
        "MLflow gets no more of this run, which goes on: not all was sent in 1 s"
    ]
    assert not Path(f"/proc/{process}").exists()


def test_trackio_has_one_run_over_a_kill(starter: Starter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sqlite3

    store = tmp_path / "home" / "trackio"
    environ = {"HOME": str(tmp_path / "home"), "TRACKIO_DIR": str(store)}

    def rows() -> list[Any]:
        with suppress(sqlite3.OperationalError):  # not there yet
            return sqlite3.connect(f"file:{store}/mine.db?mode=ro", uri=True).execute(
                "select run_id, run_name, step, metrics from metrics"
            ).fetchall()  # fmt: skip
        return []

    run = killed_once_seen(
        starter,
        environ,
        *("trackio.enabled=true", "trackio.project=mine"),
        seen=lambda: any(step == 34 for _, _, step, _ in rows()),
    )
    assert len({number for number, _, _, _ in rows()}) == 1
    assert {name for _, name, _, _ in rows()} == {(run.folder / "trackio" / "run_id").read_text()}
    logged = [(step, chart) for _, _, step, row in rows() for chart in json.loads(row)]
    assert len(logged) == len(set(logged)), "each step has each chart once"
    charts = {(step, chart): value for _, _, step, row in rows() for chart, value in json.loads(row).items()}
    for line in run.metrics("train"):
        assert charts[line["step"], "train/loss"] == line["loss"]
    for name, kind in (("picture", "image"), ("answers", "table"), ("note", "markdown"), ("sound", "audio")):
        assert charts[60, f"eval/{name}"]["_type"] == f"trackio.{kind}"
    assert charts[60, "eval/accuracy"] == run.metrics("eval")[-1]["accuracy"]
    assert max(charts[at] for at in charts if at[1] == "best/eval/accuracy") == max(
        line["accuracy"] for line in run.metrics("eval")
    )


def test_w_and_b_has_each_step_once_over_a_kill(starter: Starter, tmp_path: Path) -> None:
    """In its offline files, as they are synchronised one after the other."""
    files = starter.folder / "runs/seen/wandb"
    run = killed_once_seen(
        starter,
        {"HOME": str(tmp_path / "home"), "WANDB_MODE": "offline"},
        "wandb.mode=offline",
        seen=lambda: any(offline_rows(file) for file in files.glob("offline-run-*/*.wandb")),
    )
    written = [offline_rows(file) for file in sorted(files.glob("offline-run-*/*.wandb"))]
    assert len(written) == 2
    assert all(written), "both starts were seen"
    rows = [row for each in written for row in each]
    assert [(row["step"], row["train/loss"]) for row in rows if "train/loss" in row] == [
        (line["step"], line["loss"]) for line in run.metrics("train")
    ]
    assert [(row["step"], row["eval/accuracy"]) for row in rows if "eval/accuracy" in row] == [
        (line["step"], line["accuracy"]) for line in run.metrics("eval")
    ]
    assert [row["step"] for row in rows if any(key.startswith("eval/note") for key in row)] == [
        line["step"] for line in run.metrics("eval")
    ]


def offline_rows(file: Path) -> list[dict[str, Any]]:
    """The rows of history in a file of W&B's, which are records in LevelDB's log format behind seven bytes of its own."""
    from wandb.proto.wandb_internal_pb2 import Record  # type: ignore[attr-defined]  # made as it is imported

    content, at, record, found = file.read_bytes(), 7, b"", []
    while at + 7 <= len(content):
        if (left := 2**15 - at % 2**15) < 7:
            at += left
            continue
        length, kind = int.from_bytes(content[at + 4 : at + 6], "little"), content[at + 6]
        record += content[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last part
            row = Record.FromString(record).history
            found += [{"".join(item.nested_key) or item.key: json.loads(item.value_json) for item in row.item}]
            record = b""
    return [row for row in found if row]

"""A run that was made before all of ours was one package is read as any other, and goes on once its user has said so."""

import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from phalanx.launch.commands.logs import logs
from phalanx.launch.commands.report import report
from phalanx.launch.commands.status import status
from tests.ranks import ROOT, Results, Starter

BEFORE = ROOT / "tests" / "fixtures" / "before_one_package"
NAME = "digits-6d73c544"
COMMAND = (
    *("model=mlp", "model.hidden=[1]", "train.steps=400", "train.epochs=null", "eval.every=null"),
    *("checkpoint.every=10", "checkpoint.keep=1", "log.every=10"),
)
ACCEPT = "run.accept=changed"


@pytest.fixture
def before(tmp_path: Path) -> Results:
    """Made by commit 1ac7077 on one rank, and stopped after 40 of 400 steps."""
    shutil.copytree(BEFORE, tmp_path / "runs")
    return Results(tmp_path / "runs" / NAME)


def test_status_report_and_logs_read_it(before: Results) -> None:
    root = f"--root={before.folder.parent}"
    for verb, told in (
        (status, "stopped  40/400"),
        (logs, "stop at step 40/400  why SIGINT reached rank 0"),
        (report, "report.html"),
    ):
        done = CliRunner().invoke(verb, [NAME, root])
        assert done.exit_code == 0
        assert told in done.output


@pytest.mark.parametrize("replayed", [False, True], ids=["typed", "from"])
def test_it_goes_on_once_its_user_has_said_so(starter: Starter, before: Results, replayed: bool) -> None:
    """By the command that began it, which finds it by the same name, and by --from."""
    words = [f"--config-dir={before.folder}", "--config-name=resolved", "log.every=10"] if replayed else COMMAND
    saved = {path: path.read_bytes() for path in before.folder.rglob("*") if path.is_file()}
    ended = starter.run(1, *words)
    assert ended.codes == [2]
    assert "its code or data changed: Phalanx itself is another version (files: " in ended.output
    assert f"Type {ACCEPT} to continue all the same" in ended.output
    assert ended.output.count("\n") == 1
    assert {path: path.read_bytes() for path in before.folder.rglob("*") if path.is_file()} == saved
    ended = starter.run(1, *words, ACCEPT)
    assert ended.codes == [0], ended.output
    assert [event["step"] for event in before.events("resume")] == [40]
    assert [line["step"] for line in before.metrics("train")] == list(range(10, 401, 10))
    assert starter.run(1, *words).codes == [0], "it is this version's now"


def test_it_comes_to_what_a_run_of_now_comes_to(starter: Starter, before: Results) -> None:
    """To the same bits where the machine is as the one that it began on."""
    starter.run(1, *COMMAND, ACCEPT)
    now = starter.train(1, *COMMAND, name="now")
    assert before.summary["samples"] == now.summary["samples"]
    for name, weight in now.weights().items():
        assert weight.allclose(before.weights()[name], rtol=1e-3, atol=1e-4), name

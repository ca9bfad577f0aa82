"""A notebook trains on two ranks a class of its own that stands in a module beside it, and is told why a run failed."""

import re
import uuid
from pathlib import Path
from typing import Any

import pytest

from tests.launch.command import marked, stand_in
from tests.ranks import QUIET, ROOT, SMALL, until

nbclient, nbformat, manager = map(pytest.importorskip, ("nbclient", "nbformat", "jupyter_client.manager"))
pytestmark = pytest.mark.xdist_group("notebook")  # one process executes it, once

MODULE = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, width, lasts):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(784, width), nn.ReLU(), nn.Linear(width, 10))
        self.left = lasts

    def forward(self, images):
        self.left -= self.training
        if self.left < 0:
            raise ValueError("this net has had enough")
        return self.layers(images)
"""
OWN = ("~model", "+model._target_=mine.Net", "+model.width=8", "train.epochs=null", "train.steps=20", "eval.every=10")
WORDS = f"*{(*SMALL, *OWN)}"
CELLS = {
    "train": f"import phalanx, sys\nrun = phalanx.run({WORDS}, '+model.lasts=1000', ranks=2)\n'torch' in sys.modules",
    "metrics": "[(line['step'], line['loss']) for line in run.metrics('eval')], run.summary['world_sizes']",
    "model": "import torch\nmodel = run.model('best')\ntype(model), model.training, model(torch.zeros(3, 1, 28, 28)).shape",
    "fail": f"""
try:
    phalanx.run({WORDS}, '+model.lasts=16', ranks=1)
except phalanx.RunFailed as error:
    failed = error
    raise""",
    "failed": "failed.code, failed.cause, [line['step'] for line in failed.run.metrics('eval')], failed.run.summary",
    "main": """
class Net(torch.nn.Linear): ...
phalanx.run('~model', '+model._target_=__main__.Net')""",
}


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, Any]]]:
    """What the cells of one notebook came to."""
    folder = tmp_path_factory.mktemp("notebook")
    (folder / "mine.py").write_text(MODULE)
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in CELLS.values()])
    with pytest.MonkeyPatch.context() as patched:
        set_up(patched, folder)
        client = nbclient.NotebookClient(
            notebook, kernel_name="python3", allow_errors=True, resources={"metadata": {"path": str(folder)}}
        )
        client.execute()
    return {name: cell.outputs for name, cell in zip(CELLS, notebook.cells, strict=True)}


def set_up(patched: pytest.MonkeyPatch, folder: Path) -> None:
    """The environment of a kernel that writes below `folder` alone."""
    own = {name: str(folder / "jupyter") for name in ("IPYTHONDIR", "JUPYTER_RUNTIME_DIR", "JUPYTER_DATA_DIR")}
    for name, value in {**QUIET, **own, "JUPYTER_PLATFORM_DIRS": "1", "PYTHONPATH": str(ROOT)}.items():
        patched.setenv(name, value)


def printed(outputs: list[dict[str, Any]]) -> str:
    return "".join(output["text"] for output in outputs if output["output_type"] == "stream")


def value(outputs: list[dict[str, Any]]) -> str:
    (found,) = [output["data"]["text/plain"] for output in outputs if output["output_type"] == "execute_result"]
    return str(found)


def test_progress_is_shown_below_the_cell(outputs: dict[str, list[dict[str, Any]]]) -> None:
    assert not [output for output in outputs["train"] if output["output_type"] == "error"], outputs["train"]
    lines = printed(outputs["train"]).splitlines()
    starts = (
        "phalanx: starting 2 ranks",
        "start at step 0/20",
        "step 10/20",
        "eval at step 10/20",
        "finished  steps 20",
    )
    assert [start for start in starts if any(line.startswith(start) for line in lines)] == [*starts]
    assert value(outputs["train"]) == "False", "torch is for the model alone"


def test_the_run_that_is_returned_has_numbers_and_a_model(outputs: dict[str, list[dict[str, Any]]]) -> None:
    """Of a class that no list of ours knows: it was typed here."""
    (first, second), sizes = eval(value(outputs["metrics"]))
    assert (first[0], second[0], sizes) == (10, 20, [2])
    assert second[1] < first[1]
    assert value(outputs["model"]) == "(mine.Net, False, torch.Size([3, 10]))"


def test_a_run_that_fails_raises_its_exit_code_and_cause(outputs: dict[str, list[dict[str, Any]]]) -> None:
    (error,) = [output for output in outputs["fail"] if output["output_type"] == "error"]
    assert error["ename"] == "RunFailed"
    assert error["evalue"].startswith("exit code 1: rank 0 on ")
    assert error["evalue"].endswith(": ValueError: this net has had enough")
    assert re.search(r"in step 1\d, .* at mine\.py:\d+ in forward", printed(outputs["fail"]))
    assert value(outputs["failed"]).startswith("(<ExitCode.BUG: 1>,")
    assert value(outputs["failed"]).endswith("\n [10],\n None)")


def test_a_class_of_the_notebook_itself_is_refused_in_words(outputs: dict[str, list[dict[str, Any]]]) -> None:
    (error,) = [output for output in outputs["main"] if output["output_type"] == "error"]
    assert error["evalue"].startswith(
        "exit code 2: model._target_=__main__.Net: Net is defined in a notebook or script"
    )
    assert error["evalue"].endswith("such as mymodule.py, and type model._target_=mymodule.Net")


def test_the_stop_button_lets_the_run_save_and_leave(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    set_up(monkeypatch, tmp_path)
    mark = uuid.uuid4().hex
    monkeypatch.setenv("PYTHON_EXEC", stand_in(tmp_path, "tell('heard', hear())\nsys.exit(7)"))
    kernels, client = manager.start_new_kernel(cwd=str(tmp_path))
    try:
        sent = client.execute(f"import os, phalanx\nos.environ['MARK'] = '{mark}'\nphalanx.run(ranks=1)")
        until((tmp_path / "ready-0").exists)
        kernels.interrupt_kernel()
        answers = iter(client.get_shell_msg, None)  # also to what was asked before, such as whether it is ready
        answer = next(answer["content"] for answer in answers if answer["parent_header"]["msg_id"] == sent)
        assert not marked(f"MARK={mark}"), "it was raised before the run had left"
    finally:
        client.stop_channels()
        kernels.shutdown_kernel(now=True)
    assert (answer["status"], answer["ename"]) == ("error", "KeyboardInterrupt")
    assert (tmp_path / "heard-0").read_text() == "SIGINT"

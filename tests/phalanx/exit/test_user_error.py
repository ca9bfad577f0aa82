"""An error in a user's code is told by the user's own line and what was under way there; the rest is in the log."""

import json
import re

import pytest

from tests.ranks import Starter
from tests.train.small_runs import planted

RUN = (*planted(), "run.name=r", "train.steps=12", "log.every=1")
BARE = [word for word in RUN if not word.startswith("model")]
TORN = ("data.train._target_=tests.zoo.faults.Torn", "+data.train.index=42")
MISMATCHED = ("~model", "+model._target_=tests.zoo.faults.Mismatched")


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_wrong_shape_is_told_with_step_shapes_and_the_users_line(starter: Starter, ranks: int) -> None:
    ended = starter.run(ranks, *BARE, *MISMATCHED, "+model.after=4")
    assert ended.codes == [1] * ranks
    share = 8 // ranks
    head, *rest = ended.output[ended.output.index("error on rank") :].splitlines()
    line = r"tests/zoo/faults.py:\d+ in forward:"
    assert re.fullmatch(
        rf"error on rank \d on \S+ in step \d, batch \({share}, 12\) float32, \({share},\) int64, at .*{line}", head
    )
    assert rest[0] == "Traceback (most recent call last):"
    files = [found[1] for text in rest if (found := re.match(r'  File "(.*)", line', text))]
    assert files
    assert all("/tests/zoo/" in file for file in files), files
    assert any("shapes cannot be multiplied" in text for text in rest)
    assert re.fullmatch(r"Every frame of it is in .*/r/logs/rank_\d\.log", rest[-1])
    log = "".join(path.read_text() for path in (starter.folder / "runs/r/logs").iterdir())
    assert "train/engine/loop/train_loop.py" in log
    assert "torch/nn/modules/linear.py" in log
    [event] = starter.results("r").events("error")
    assert event["message"].startswith("RuntimeError: mat1 and mat2 shapes cannot be multiplied")
    assert event["where"].startswith("in step ")
    assert event["where"].endswith("in forward")


def test_an_error_in_the_sanity_check_is_told_so(starter: Starter) -> None:
    ended = starter.run(1, *BARE, *MISMATCHED, "+model.after=0")
    assert ended.codes == [1]
    assert "in the sanity check before the first step, batch (8, 12) float32, (8,) int64, at " in ended.output
    assert "train/" not in ended.output.replace("data.train", "")


def test_what_failed_before_and_in_an_evaluation_is_told(starter: Starter) -> None:
    chained = (
        "task._target_=tests.zoo.faults.Chained",
        "data.eval={_target_:tests.train.faulty_parts.Planted,samples:9}",
    )
    ended = starter.run(1, *RUN, *chained)
    assert ended.codes == [1]
    assert "KeyError: 'score'" in ended.output
    assert "TwoLinesError: no score" in ended.output
    assert re.search(r"error on rank 0 on \S+ in (an evaluation|the sanity check)", ended.output)


@pytest.mark.parametrize(("ranks", "workers"), [(2, 0), (1, 1)])
def test_a_sample_that_cannot_be_read_is_named_by_its_own_index(starter: Starter, ranks: int, workers: int) -> None:
    ended = starter.run(ranks, *RUN, *TORN, f"data.workers={workers}")
    assert ended.codes == [1] * ranks
    told = ended.output[ended.output.index("error on rank") :]
    line = r"tests/zoo/faults.py:\d+ in __getitem__:\n"
    assert re.match(rf"error on rank \d on \S+ in step \d+, data\.train's sample 42, at .*{line}", told)
    assert "TwoLinesError: image 42 is torn\nscan it anew\nor leave it out" in told
    assert "site-packages/torch" not in told
    assert "train/data" not in told
    [event] = starter.results("r").events("error")
    assert event["message"].endswith("image 42 is torn\nscan it anew\nor leave it out")


@pytest.mark.parametrize(
    ("line", "told"),
    [("x = unknown", "NameError: name 'unknown' is not defined"), ("x = = 3", "SyntaxError: invalid syntax")],
)
def test_a_module_that_cannot_be_imported_is_told_by_its_own_line(starter: Starter, line: str, told: str) -> None:
    """Without a frame of ours; the cause names the error, too."""
    (starter.folder / "unimportable.py").write_text(f"import torch\n{line}\n")
    environ = {"PYTHONPATH": str(starter.folder), "PHALANX_CAUSE_FILE": str(starter.folder / "cause")}
    ended = starter.run(1, "~model", "+model._target_=unimportable.Net", "run.name=r", environ=environ)
    assert ended.codes == [1]
    assert ended.output.startswith("error while the classes of the config were imported")
    assert f'File "{starter.folder}/unimportable.py", line 2' in ended.output
    assert ended.output.endswith(f"{told}\n")
    assert "phalanx/" not in ended.output
    cause = json.loads((starter.folder / "cause").read_text())
    assert cause["code"] == 1
    assert cause["message"].endswith(told)

"""A run folder that an earlier state of the code left unfinished goes on to the bits that it would have come to then.

The folder was made by the code of 2026-11-30 and never changes: a new one would only show that today's code reads what it
writes. What it trains rounds nothing (see exact.py), so its weights are the same on any machine.
"""

import shutil
from pathlib import Path

import pytest

from tests.ranks import Results, Starter

KEPT = Path(__file__).parents[1] / "fixtures/unfinished_run"  # its package and config; run/ is after 4 of 8 steps
SHA256 = "0641cc64d3bc80c7510fe994e76a9252ad117ddb2692d5c22ac9aeaeb2fcd9bf"  # of the weights after 8 steps
RUN = (f"--config-dir={KEPT / 'conf'}", "experiment=exact", "log.every=2")
ENVIRON = {"PYTHONPATH": str(KEPT)}


@pytest.fixture
def unfinished(starter: Starter) -> Results:
    """A copy of the folder, where the command looks for run `r`."""
    results = starter.results("r")
    shutil.copytree(KEPT / "run", results.folder)
    return results


@pytest.mark.parametrize("ranks", [1, 2])
def test_todays_code_continues_a_kept_run_folder_to_the_bits_of_an_undisturbed_run(
    starter: Starter, unfinished: Results, ranks: int
) -> None:
    whole = starter.train(ranks, *RUN, name="whole", environ=ENVIRON)
    assert whole.sha256 == SHA256
    before = unfinished.metrics()
    continued = starter.train(ranks, *RUN, "run.accept=changed", name="r", environ=ENVIRON)
    assert continued.metrics()[: len(before)] == before, "the lines of the kept steps are still there"
    assert continued.sha256 == SHA256
    assert continued.timeless() == whole.timeless()
    assert [event["step"] for event in continued.events("resume")] == [4]
    for file in ("model.safetensors", "ema.safetensors"):
        contents = [(run.folder / "checkpoints/step_00000008" / file).read_bytes() for run in (whole, continued)]
        assert contents[0] == contents[1], file


def test_who_continues_a_kept_run_folder_is_asked_to_accept_that_the_code_changed(
    starter: Starter, unfinished: Results
) -> None:
    ended = starter.run(1, *RUN, "run.name=r", environ=ENVIRON)
    assert ended.codes == [2]
    assert "its code or data changed" in ended.output
    assert "exact.py" not in ended.output, "that is as it was"
    assert "run.accept=changed" in ended.output

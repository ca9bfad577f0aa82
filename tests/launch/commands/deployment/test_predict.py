"""`phalanx predict` says of raw inputs what the run's own evaluation said, by the run and by an export of it."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from phalanx.exit.codes import ConfigError
from phalanx.launch.commands.deployment.export_program import export_arguments, split_words
from tests.launch.commands.deployment.conftest import DIGITS, command
from tests.ranks import Nursery, Results

pytestmark = pytest.mark.xdist_group("predict")  # one run


def lines(process: "subprocess.CompletedProcess[str]") -> list[dict[str, Any]]:
    return [json.loads(line) for line in process.stdout.splitlines()]


@pytest.mark.parametrize("source", ["runs/r", "runs/r/export/safetensors"])
def test_pictures_of_a_folder_are_what_the_evaluation_took_them_for(
    nursery: Nursery, predicting: Results, source: str
) -> None:
    process = command(nursery, predicting.folder, "predict", source, "pictures", "--batch", "5", "--which", "best")
    assert process.returncode == 0, process.stderr
    found = lines(process)
    assert [line["input"] for line in found] == [f"pictures/{i:02}.png" for i in range(DIGITS)]
    (file,) = (predicting.folder / "predictions").glob("eval_step_*20.jsonl")
    expected = {line["index"]: line for line in map(json.loads, file.read_text().splitlines())}
    for i, line in enumerate(found):
        assert line["prediction"] == str(expected[i]["prediction"])
        assert line["score"] == pytest.approx(expected[i]["score"], rel=1e-4)
    assert f"{DIGITS} inputs: a batch of 5 took" in " ".join(process.stderr.split())


def test_what_cannot_be_read_costs_the_others_nothing_and_a_file_is_written_whole(
    nursery: Nursery, predicting: Results
) -> None:
    cwd = predicting.folder.parent.parent
    words = ["pictures/01.png", "nothing.png", "said", "pictures/00.png"]
    process = command(nursery, predicting.folder, "predict", "runs/r/export/safetensors", *words, "--output", "o.jsonl")
    assert (process.returncode, process.stdout) == (1, "")
    found = [json.loads(line) for line in (cwd / "o.jsonl").read_text().splitlines()]
    assert [line["input"] for line in found] == words
    assert ["error" in line for line in found] == [False, True, True, False]
    assert found[1]["error"] == "it cannot be read: No such file or directory"
    assert "4 inputs, 2 of them without a prediction" in " ".join(process.stderr.split())
    before = (cwd / "o.jsonl").read_bytes()
    (cwd / "broken").mkdir(exist_ok=True)
    (cwd / "broken/export.json").write_text("{")
    process = command(nursery, predicting.folder, "predict", "broken", *words, "--output", "o.jsonl")
    assert process.returncode == 2
    assert "is damaged" in process.stderr
    assert (cwd / "o.jsonl").read_bytes() == before


def test_the_run_itself_takes_lines_of_a_file_and_tells_the_likeliest_classes(
    nursery: Nursery, predicting: Results
) -> None:
    said = "pictures/03.png\r\nnothing.png\n"
    process = command(nursery, predicting.folder, "predict", "r", "--lines", "-", "--top", "3", said=said)
    assert process.returncode == 1
    good, bad = lines(process)
    assert good["input"] == "pictures/03.png"
    assert good["top"][0]["prediction"] == good["prediction"]
    assert len(good["top"]) == 3
    assert bad == {"input": "nothing.png", "error": "it cannot be read: No such file or directory"}


def test_words_that_would_have_no_effect_are_refused_before_anything_starts(
    nursery: Nursery, predicting: Results
) -> None:
    for words, told in (
        (("r",), "There is nothing to predict"),
        (("runs/r/export/safetensors", "a.png", "--which", "last"), "is a checkpoint of a run"),
        (("r", "--lines", "absent"), "--lines=absent cannot be read"),
        (("absent", "a.png"), "absent"),
    ):
        process = command(nursery, predicting.folder, "predict", *words)
        assert (process.returncode, process.stdout) == (2, ""), words
        assert told in " ".join(process.stderr.split())


def test_settings_stand_among_the_inputs_and_texts_may_look_like_others() -> None:
    inputs, settings = split_words(["a=b", "run.trust=[mine, yours]", "optim.lr=1", "world.device=cuda", "no"])
    assert inputs == ["a=b", "optim.lr=1", "no"]
    assert export_arguments(Path("e"), settings) == ["e", "--trust=mine", "--trust=yours", "--device=cuda"]
    with pytest.raises(ConfigError, match="says nothing to an export"):
        export_arguments(Path("e"), ["run.imports=[x]"])

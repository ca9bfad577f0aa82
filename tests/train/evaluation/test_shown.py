"""What a task shows of an evaluation is in files and trackers, and changes nothing."""

import csv
import io
import json
import wave
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image as Picture
from sklearn.metrics import confusion_matrix

from phalanx import drawing
from phalanx.exit.codes import ConfigError
from phalanx.train.sinks.evaluation_files import EvaluationFiles
from phalanx.train.sinks.shown import Audio, Image, Shown, Table, Text
from phalanx.train.sinks.shown_retention import ShownRetention
from phalanx.train.sinks.tensorboard import TensorBoard
from phalanx.train.sinks.trackers.best_values import BestValues
from phalanx.train.sinks.trackers.weights_and_biases import WeightsAndBiases
from phalanx.train.tasks.answer import checked_shown
from tests.ranks import Starter
from tests.train.small_runs import planted

LINE = {"step": 3, "split": "val", "time": 1.0}
ITEMS: dict[str, Shown] = {
    "picture": Image(torch.arange(12, dtype=torch.uint8).view(3, 4)),
    "table": Table(["a", "b"], [[1, "x|y"], [np.float64(2.5), torch.tensor(3)]]),
    "note": Text("<b>é</b>"),
    "sound": Audio(np.zeros((2, 100)), 8000),
}


def test_a_run_shows_each_evaluation_and_trains_to_the_same_bits(starter: Starter) -> None:
    words = (*planted(96), "data.eval={_target_: tests.train.faulty_parts.Planted, samples: 40}", "eval.batch=8")
    steps = ("train.steps=6", "train.epochs=null", "eval.every=3", "eval.first=true", "eval.predictions=40")
    task = ("~task", "+task={_target_: tests.zoo.shown.Showing, classes: 10, label_smoothing: 0.0}")
    plain = starter.train(2, *words, *steps, "log.shown=0", name="plain")
    run = starter.train(2, *words, *steps, *task, name="run")
    alone = starter.train(1, *words, *steps, *task, name="alone")
    assert run.sha256 == plain.sha256
    assert [{**line, "time": 0} for line in run.metrics("eval")] == [
        {**line, "time": 0} for line in plain.metrics("eval")
    ]
    assert not (plain.folder / "shown").exists()
    folders = sorted((run.folder / "shown").iterdir())
    assert [folder.name for folder in folders] == [f"eval_step_0000000{step}" for step in (0, 3, 6)]
    first = {file.name: file.read_bytes() for file in folders[0].iterdir()}
    assert first == {name: (alone.folder / "shown/eval_step_00000000" / name).read_bytes() for name in first}
    files = {file.name: file for file in folders[2].iterdir()}
    assert files.keys() == {"picture.png", "answers.csv", "note.txt", "sound.wav", "confusion_matrix.png"}
    for found in (run, alone):
        texts = (found.folder / "predictions/eval_step_00000006.jsonl").read_text().splitlines()
        rows = [json.loads(line) for line in texts]
        true = confusion_matrix([row["label"] for row in rows], [row["prediction"] for row in rows], labels=range(10))
        assert true.sum() == 40
        drawn = (found.folder / "shown/eval_step_00000006/confusion_matrix.png").read_bytes()
        assert drawn == drawing.confusion_matrix(true).content, "scikit-learn's, of all samples"
    with Picture.open(files["picture.png"]) as picture:
        assert picture.size == (5, 4)
    with files["answers.csv"].open() as lines:
        assert [len(row) for row in csv.reader(lines)] == [3] * 9, "the first batch, of 8"
    assert files["note.txt"].read_text() == "step 6 of 6"
    with wave.open(str(files["sound.wav"])) as sound:
        assert (sound.getnframes(), sound.getframerate(), sound.getsampwidth()) == (800, 8000, 2)


def test_what_is_shown_comes_to_trackers(tmp_path: Path) -> None:
    options: dict[str, Any] = {"project": "p", "entity": None, "group": None, "tags": [], "name": "n", "config": {}}
    sinks = [
        EvaluationFiles(tmp_path, lambda: None, ShownRetention(tmp_path, 3, 20, None)),
        TensorBoard(tmp_path, 0),
        WeightsAndBiases(tmp_path, mode="offline", files={}, best=BestValues({}), finish_timeout_s=30, **options),
    ]
    for sink in sinks:
        sink.show(LINE, ITEMS)
        sink.close({})
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert events.Tags()["images"] == ["val/picture"]
    assert events.Tags()["audio"] == ["val/sound"]
    assert {"val/table/text_summary", "val/note/text_summary"} <= {*events.Tags()["tensors"]}
    media = {path.suffix for path in (tmp_path / "wandb").rglob("files/media/**/*") if path.is_file()}
    assert {".png", ".json", ".html", ".wav"} <= media


def test_pixels_are_those_that_were_given() -> None:
    bright = Image(torch.tensor([[0.0, 1.0], [2.0, float("nan")]])).array()
    assert bright[:, :, 0].tolist() == [[0, 255], [255, 0]]
    assert Image(np.full((3, 2, 2), 7, np.uint8)).array().tolist() == np.full((2, 2, 3), 7).tolist()
    assert Image(torch.zeros(4, 2, 2, dtype=torch.bfloat16)).array().shape == (2, 2, 4)
    for channels in (1, 3, 4):
        given = Image(torch.randint(0, 256, (channels, 7, 5), dtype=torch.uint8))
        with Picture.open(io.BytesIO(given.content)) as picture:
            assert np.array_equal(np.asarray(picture).reshape(7, 5, channels), given.array())


@pytest.mark.parametrize(
    ("found", "says"),
    [
        (None, r"show\(\) answered with nothing, .* return {\"examples\": Image\(pixels\)}"),
        ({"a/b": Text("")}, "called 'a/b', which is to name a file"),
        ({"a": "text"}, "a that is a str. Show an Image, Table, Text or Audio"),
        ({"a": torch.zeros(2)}, r"a that is a tensor of shape \(2,\)"),
    ],
)
def test_what_cannot_be_shown_is_told(found: object, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        checked_shown(found)


@pytest.mark.parametrize(
    ("item", "says"),
    [
        (Image(torch.zeros(2, 3, 4, 4)), r"pixels of shape \(2, 3, 4, 4\), .*make_grid"),
        (Table(["a"], [[1], [1, 2]]), "1 columns, and a row of 2 cells"),
        (Audio(torch.zeros(1, 2, 3), 8000), r"samples of shape \(1, 2, 3\)"),
    ],
)
def test_an_item_that_is_no_file_says_what_it_wants(item: Shown, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        item.encoded()

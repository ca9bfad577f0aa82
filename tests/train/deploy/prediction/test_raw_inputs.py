"""A raw input becomes what the data set makes of the same one, and what is wrong with it is told."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from phalanx.deployment.forms import checked_preprocessing
from phalanx.exit.codes import ConfigError
from phalanx.train.data.digits import Digits, read
from phalanx.train.data.ratings.ratings import RatingTable
from phalanx.train.data.speech.audio_folder import AudioFolder
from phalanx.train.data.speech.log_mel import LogMel
from phalanx.train.data.text.labelled_texts import TextTable
from phalanx.train.data.vision.files.crops import CenterCrop
from phalanx.train.data.vision.files.image_folder import ImageFolder
from phalanx.train.deploy.prediction.answers import as_json
from phalanx.train.deploy.prediction.raw_inputs import RawInputs
from phalanx.train.deploy.prediction.typed_inputs import expanded, raw_of
from phalanx.train.prepared.cache import Cache
from tests.train.data.speech.sounds import RATE, words, write_folder
from tests.train.data.vision.photographs import write_photographs

NO_SOUND = "cannot be read|others need soundfile"  # with that package, and without


def inputs(form: Any, shapes: dict[str, tuple[Any, ...]] | None = None, **dtypes: str) -> RawInputs:
    return RawInputs(checked_preprocessing(form, list(dtypes), "a test"), dtypes, shapes or {}, None)


def png(pixels: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def test_a_digit_is_what_training_saw() -> None:
    held_out = Digits("held_out")
    pixels = read()[0][read()[2]]
    made = inputs(held_out.preprocessing(), x="float32")
    found = made.batch([made.sample(png(each)) for each in pixels[:3]])["x"]
    expected, _ = held_out.__getitems__(np.arange(3))
    assert np.allclose(found, expected, atol=1e-6)
    colours = made.sample(png(np.repeat(pixels[0][:, :, None], 3, 2)))
    assert np.allclose(colours["x"], expected[0], atol=1e-6)


@pytest.mark.parametrize("size", [(500, 375), (200, 333)])
def test_a_photograph_is_scaled_and_cut_as_an_evaluation_does(tmp_path: Path, size: tuple[int, int]) -> None:
    root = write_photographs(tmp_path, 1, size)
    data = ImageFolder(str(root), CenterCrop(96, 128), [0.4, 0.5, 0.6], [0.2, 0.3, 0.25], Cache(tmp_path / "cache"))
    made = inputs(data.preprocessing(), x="float32", other="float32")
    files = sorted(root.rglob("*.jpg"))
    for i, file in enumerate(files):
        found = RawInputs({"x": data.preprocessing()}, {"x": "float32"}, {}, None).sample(file.read_bytes())["x"]
        assert np.allclose(found, data[i][0], atol=1e-5)
    with pytest.raises(ConfigError, match="an input is x and other, and this one is the content of a file"):
        made.sample(files[0].read_bytes())


def test_texts_are_cut_and_padded_as_in_a_batch(tmp_path: Path) -> None:
    rows = [("Fine, really", "good"), ("No", "bad"), ("so so — meh", "bad")]
    (tmp_path / "t.jsonl").write_text("\n".join(json.dumps({"text": text, "label": label}) for text, label in rows))
    data = TextTable(str(tmp_path / "t.jsonl"), ["bad", "good"], longest=9, lower=True)
    made = inputs(data.preprocessing(), tokens="int64")
    found = made.batch([made.sample(text) for text, _ in rows])["tokens"]
    assert np.array_equal(found, data.__getitems__([0, 1, 2])[0])
    assert made.batch([made.sample("")])["tokens"].tolist() == [[0]]


def test_sounds_have_the_features_and_lengths_of_a_batch(tmp_path: Path) -> None:
    data = AudioFolder(str(write_folder(tmp_path / "s", words(4))), LogMel(RATE, mels=20), Cache(tmp_path / "cache"))
    made = inputs(data.preprocessing(), features="float32", lengths="int64")
    found = made.batch([made.sample((tmp_path / "s" / name).read_bytes()) for name in words(4)])
    expected = data.collate([data[i] for i in range(4)])
    assert np.array_equal(found["lengths"], expected["lengths"])
    assert np.allclose(found["features"], expected["features"], atol=1e-4)


def test_pairs_are_typed_or_named_and_stand_in_the_order_of_the_inputs(tmp_path: Path) -> None:
    (tmp_path / "r.csv").write_text("user,item,rating\n3,1,4.5\n0,4,2\n")
    data = RatingTable(str(tmp_path / "r.csv"), 6, 7)
    made = inputs(data.preprocessing(), users="int64", items="int64")
    typed = ["3,1", '{"items": 4, "users": 0}', "[0, 4]"]
    found = made.batch([made.sample(raw_of(word, made.kinds)) for word in typed])
    assert found["users"].tolist() == [3, 0, 0]
    assert found["items"].tolist() == [1, 4, 4]
    for word, told in (
        ("3,7", "no whole number from 0 to 6"),
        ("3", "users and items, and this one is a list of 1"),
        ('{"users": 3}', "an object of users"),
        ("3,-1", "no whole number"),
        ("3,1.0", "no whole number"),
    ):
        with pytest.raises(ConfigError, match=told):
            made.sample(raw_of(word, made.kinds))


def test_inputs_of_a_model_with_names_of_its_own_are_taken_in_their_order(tmp_path: Path) -> None:
    (tmp_path / "r.csv").write_text("user,item,rating\n3,1,4.5\n")
    forms = checked_preprocessing(RatingTable(str(tmp_path / "r.csv"), 6, 7).preprocessing(), ["u", "i"], "a test")
    assert forms == {"u": {"kind": "index", "size": 6}, "i": {"kind": "index", "size": 7}}
    data = AudioFolder(str(write_folder(tmp_path / "s", words(1))), LogMel(RATE), Cache(tmp_path / "cache"))
    assert checked_preprocessing(data.preprocessing(), ["x", "n"], "a test")["n"] == {"kind": "length", "of": "x"}


def test_masks_vocabularies_and_numbers_are_made_as_the_page_says() -> None:
    form = {
        "words": {"kind": "text", "tokenizer": "words", "vocabulary": ["a", "b"], "unknown": 9, "begin": 7, "end": 8},
        "there": {"kind": "mask", "of": "words"},
        "kind": {"kind": "index", "vocabulary": ["cat", "dog"]},
        "age": {"kind": "number", "mean": 10, "std": 5},
    }
    made = inputs(form, words="int32", there="bool", kind="int64", age="float32")
    found = made.batch([made.sample(["b x", "dog", 20]), made.sample({"words": "", "kind": "cat", "age": 10})])
    assert found["words"].tolist() == [[7, 1, 9, 8], [7, 8, 0, 0]]
    assert found["there"].tolist() == [[True] * 4, [True, True, False, False]]
    assert (found["kind"].tolist(), found["age"].tolist()) == ([1, 0], [2.0, 0.0])
    assert {name: array.dtype.name for name, array in found.items()}["words"] == "int32"


@pytest.mark.parametrize(
    ("raw", "told"),
    [
        ([[1.0, 2.0]], "x has the shape 1 x 2, and the model takes 2 x length"),
        ([[1.0], [2.0, 3.0]], "x cannot be read as a tensor"),
        ([[1.0], [float("nan")]], "not finite"),
        ("word", "numbers in lists"),
        ({"y": 1}, "numbers in lists"),
        (None, "numbers in lists"),
    ],
)
def test_a_tensor_of_another_shape_or_of_no_numbers_is_told(raw: Any, told: str) -> None:
    made = inputs({"kind": "tensor"}, {"x": ("batch", 2, "length")}, x="float32")
    assert made.sample([[1], [2]])["x"].tolist() == [[1], [2]]
    with pytest.raises(ConfigError, match=told):
        made.sample(raw)


def test_what_is_no_picture_or_no_sound_is_told_and_none_is_too_large(tmp_path: Path) -> None:
    image = inputs({"kind": "image", "channels": 3, "size": None, "mean": [0] * 3, "std": [1] * 3}, x="float32")
    sound = inputs({"kind": "audio", "sample_rate": RATE}, x="float32")
    whole = png(np.random.default_rng(0).integers(0, 256, (90, 90, 3), np.uint8))
    for made, octets, told in (
        (image, b"", "no picture"),
        (image, whole[:9000], "cannot be decoded"),
        (image, png(np.zeros((9000, 9000), np.uint8)), "9000 x 9000 pixels"),
        (image, "a.png", "the content of a file"),
        (sound, b"RIFF", NO_SOUND),
        (sound, b"", NO_SOUND),
    ):
        with pytest.raises(ConfigError, match=told):
            made.sample(octets)
    sizes = [image.key(image.sample(png(np.zeros((size, 9, 3), np.uint8)))) for size in (8, 9, 8)]
    assert sizes[0] == sizes[2] != sizes[1]


def test_a_tokenizer_outside_of_the_export_is_not_opened(tmp_path: Path) -> None:
    form = {"kind": "text", "tokenizer": "file", "file": "../secret"}
    with pytest.raises(ConfigError, match="does not lie in the export"):
        RawInputs({"x": form}, {"x": "int64"}, {}, tmp_path)


def test_arrays_of_a_file_hold_no_objects(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([object()]))
    np.save(tmp_path / "b.npy", np.eye(2))
    with pytest.raises(ConfigError, match="no array of numbers"):
        raw_of(str(tmp_path / "a.npy"), {"x": "tensor"})
    assert torch.equal(torch.from_numpy(raw_of(str(tmp_path / "b.npy"), {"x": "tensor"})), torch.eye(2).double())


def test_a_thin_picture_is_refused_before_it_is_scaled_to_a_huge_one() -> None:
    form = {"kind": "image", "channels": 3, "size": [224, 224], "resize": 256, "mean": [0.5] * 3, "std": [0.5] * 3}
    with pytest.raises(ConfigError, match="too narrow"):
        inputs(form, x="float32").sample(png(np.zeros((1, 1_200_000), np.uint8)))


@pytest.mark.parametrize(("dtype", "value"), [("float32", 1e300), ("int64", 1.5), ("uint8", 300)])
def test_a_number_that_the_models_dtype_does_not_hold_is_refused(dtype: str, value: float) -> None:
    made = inputs({"kind": "tensor"}, x=dtype)
    assert made.sample([7])["x"].tolist() == [7]
    with pytest.raises(ConfigError, match=f"x has a number that {dtype} does not hold"):
        made.sample([value])


def test_words_of_any_length_and_empty_ones_are_no_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "folder.png/a.png").write_bytes(b"")
    (tmp_path / "b.png").write_bytes(b"")
    words = ["", "x" * 5000, "."]
    assert expanded(words, {"x": "image"}) == [*words[:2], "b.png", "folder.png/a.png"]


def test_a_name_that_is_no_utf_8_is_escaped_in_its_line() -> None:
    line = as_json({"input": "\udcff.png", "other": "ü"})
    assert line.isascii()
    assert json.loads(line) == {"input": "\udcff.png", "other": "ü"}
    assert as_json({"input": "ü"}) == '{"input": "ü"}'

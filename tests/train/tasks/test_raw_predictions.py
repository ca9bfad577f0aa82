"""Tasks that predict in their own way say of raw inputs what an evaluation would, each input by itself."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from phalanx.exit.codes import ConfigError
from phalanx.train.data.speech.log_mel import LogMel
from phalanx.train.data.text.token_file import write_token_file
from phalanx.train.data.text.windows import Tokens
from phalanx.train.deploy.prediction.predictor import TaskPredictor, predicted
from phalanx.train.models.language.gpt import GPT
from phalanx.train.models.speech.fast_speech import FastSpeech
from phalanx.train.sinks.shown import Audio
from phalanx.train.tasks.detection import Detection
from phalanx.train.tasks.language.language_modeling import LanguageModeling
from phalanx.train.tasks.speech.text_to_mel import TextToMel
from tests.train.deploy.prediction.test_raw_inputs import png


def test_a_language_model_goes_on_with_each_text_as_if_it_were_alone(tmp_path: Path) -> None:
    path = tmp_path / "t.bin"
    header = write_token_file(path, [np.arange(60, dtype=np.uint32)], 256, "bytes", None)
    path.with_suffix(".json").write_text(json.dumps(header))
    torch.manual_seed(0)
    task, model = LanguageModeling(4, 5, 0.0, None), GPT(256, 16, 8, 1, 1, 0.0, False).eval()
    task.check(Tokens(str(path), 7))
    found = predicted(TaskPredictor(task, model), ["ab", "abc, and so on and on", "", "ab"])
    assert found[2]["error"].startswith("A text without a character")
    assert found[0] == found[3]
    for text, prediction in (("ab", found[0]), ("abc, and so on and on", found[1])):
        tokens = torch.tensor([list(text.encode())])
        whole = model.generate(tokens, 5, 0.0)[0, tokens.shape[1] :].tolist()
        assert prediction == {"prediction": bytes(whole).decode("utf-8", "replace")}


def test_what_is_spoken_is_a_sound_of_the_length_that_is_told() -> None:
    features = LogMel(8000, mels=40, window_s=0.064, hop_s=0.016, power=1.0, floor=1e-3, normalize=False)
    torch.manual_seed(0)
    predictor = TaskPredictor(TextToMel(features), FastSpeech(29, 40, 8, 1, 0.0).eval())
    said, strange, empty = predicted(predictor, ["abc", "ß", ""])
    assert isinstance(said["sound"], Audio)
    assert said["prediction"] == len(np.asarray(said["sound"].samples)) / 8000
    assert "'ß'" in strange["error"]
    assert "holds nothing to speak" in empty["error"]
    with pytest.raises(ConfigError, match="a text is wanted"):
        predictor.sample(b"abc")


class Corners(nn.Module):
    """Finds one box in dark pictures, two in light ones, the surer one last; its size is that of the picture."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, images: list[torch.Tensor]) -> list[dict[str, torch.Tensor]]:
        return [self._found(image) for image in images]

    def _found(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
        count = 2 if float(image.mean()) > 0.5 else 1
        box = torch.tensor([0.0, 0.0, image.shape[2], image.shape[1]]).expand(count, 4)
        return {"boxes": box, "labels": torch.tensor([7, 1])[:count], "scores": torch.tensor([0.25, 0.75])[:count]}


def test_boxes_come_by_name_the_surest_first_for_pictures_of_any_size() -> None:
    predictor = TaskPredictor(Detection(names=["background", "cat"]), Corners().eval())
    pictures = [np.zeros((4, 6, 3), np.uint8), np.full((8, 2), 255, np.uint8)]
    dark, light = predicted(predictor, [predictor.sample(png(each)) for each in pictures])
    assert dark == {"prediction": [{"label": 7, "score": 0.25, "box": [0, 0, 6, 4]}], "score": 0.25}
    boxes: list[dict[str, Any]] = light["prediction"]
    assert [(box["label"], box["score"]) for box in boxes] == [("cat", 0.75), (7, 0.25)]
    assert boxes[0]["box"] == [0, 0, 2, 8]

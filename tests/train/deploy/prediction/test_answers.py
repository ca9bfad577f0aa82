"""An answer is read as the task that was trained reads it, and one input's fault stays its own."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from phalanx.deployment.forms import checked_postprocessing
from phalanx.exit.codes import ConfigError
from phalanx.train.deploy.prediction.answers import Answers
from phalanx.train.deploy.prediction.predictor import Predictor, predicted
from phalanx.train.tasks.classification import Classification
from phalanx.train.tasks.speech.ctc import CTC
from phalanx.train.tasks.vision.segmentation import Segmentation


class Said(nn.Module):
    """Answers with what it was given."""

    def __init__(self, answer: Any) -> None:
        super().__init__()
        self._answer = answer

    def forward(self, *_: Any) -> Any:
        return self._answer


def answers(task: Any, *outputs: str, labels: Sequence[str] | None = None, top: int = 1) -> Answers:
    return Answers(checked_postprocessing(task.postprocessing(), outputs, "a test"), labels, top)


def test_classes_have_the_names_and_scores_of_an_evaluation() -> None:
    logits = torch.randn(5, 4) * 3
    task, model = Classification(4, 0.0), Said(logits).eval()
    expected = task.predictions(model, [torch.zeros(5), torch.zeros(5, dtype=torch.int64)])
    found = answers(task, "output", labels="abcd", top=2)({"output": logits.numpy()}, 5)
    for mine, theirs in zip(found, expected, strict=True):
        assert mine["prediction"] == "abcd"[theirs["prediction"]]
        assert mine["score"] == pytest.approx(theirs["score"], rel=1e-9)
        assert mine["top"][0] == {name: mine[name] for name in ("prediction", "score")}
        assert mine["top"][1]["score"] < mine["score"]


def test_speech_is_decoded_as_in_an_evaluation_and_no_frame_of_padding_counts() -> None:
    task, logits, frames = CTC("abc"), torch.randn(3, 12, 4) * 4, torch.tensor([12, 5, 1])
    batch = (torch.zeros(3, 12, 1), frames, torch.ones(3, 1, dtype=torch.int64), torch.ones(3, dtype=torch.int64))
    expected = task.predictions(Said((logits, frames)).eval(), batch)
    found = answers(task, "output_0", "output_1")({"output_0": logits.numpy(), "output_1": frames.numpy()}, 3)
    assert [each["prediction"] for each in found] == [each["prediction"] for each in expected]
    assert [each["score"] for each in found] == pytest.approx([each["score"] for each in expected], rel=1e-5)


def test_a_mask_has_the_shares_of_an_evaluation() -> None:
    task, logits = Segmentation(["sea", "land"]), torch.randn(2, 2, 6, 5)
    expected = task.predictions(Said(logits).eval(), [torch.zeros(2, 3, 6, 5), torch.zeros(2, 6, 5, dtype=torch.int64)])
    found = answers(task, "output")({"output": logits.numpy()}, 2)
    for mine, theirs, mask in zip(found, expected, logits.argmax(1), strict=True):
        assert mine["prediction"] == pytest.approx(theirs["prediction"])
        assert np.array_equal(mine["mask"].array()[:, :, 0], mask)


def test_values_and_tensors_are_given_as_they_are() -> None:
    value = Answers({"kind": "value", "output": "y"}, None, 1)
    assert value({"y": np.array([[1.5], [2.0]])}, 2) == [{"prediction": 1.5}, {"prediction": 2.0}]
    tensor = Answers({"kind": "tensor"}, None, 1)
    assert tensor({"a": np.eye(2), "b": np.array(3.0)}, 2)[1] == {"prediction": {"a": [0.0, 1.0]}}
    with pytest.raises(ConfigError, match="--top counts classes"):
        Answers({"kind": "value", "output": "y"}, None, 2)


class Odd(Predictor):
    """Cannot predict batches that hold a 13, and takes even and odd numbers apart."""

    def __init__(self) -> None:
        self.kinds = {"input": "number"}
        self.calls: list[list[int]] = []

    def sample(self, raw: Any) -> Any:
        return raw

    def key(self, sample: int) -> tuple[Any, ...]:
        return (sample % 2,)

    def predict(self, samples: Sequence[int]) -> list[dict[str, Any]]:
        self.calls.append(list(samples))
        if 13 in samples:
            raise RuntimeError("13 is not\n   for me")
        return [{"prediction": sample} for sample in samples]


def test_what_one_input_raises_costs_no_other_one_its_prediction() -> None:
    odd = Odd()
    found = predicted(odd, [1, 2, 13, 4, 5])
    assert [each.get("prediction") for each in found] == [1, 2, None, 4, 5]
    assert found[2] == {"error": "the model raised RuntimeError: 13 is not for me"}
    assert odd.calls == [[1, 13, 5], [1], [13], [5], [2, 4]]

"""Outputs are told apart by name: each on its own scale, in any type, and called as no input is."""

import copy
from collections.abc import Mapping

import numpy as np
import pytest
import torch
from torch import nn

from phalanx.train.deploy.call_form import Call, form_of
from phalanx.train.deploy.compare import Difference
from phalanx.train.deploy.runtimes.module_runtime import ModuleRuntime


def test_a_small_output_is_not_hidden_by_a_large_one() -> None:
    """Before, an exporter could write anything into a duration of 0.01 beside logits of 100."""
    ours = {"logits": torch.full((2, 3), 100.0), "duration": torch.full((2,), 0.01)}
    found = Difference()
    found.take(ours, {"logits": ours["logits"].numpy(), "duration": np.zeros(2)})
    assert found.relative == pytest.approx(1.0)
    other = Difference()
    other.take(ours, {name: tensor.numpy() for name, tensor in ours.items()})
    assert other.relative == 0
    other.add(found)
    assert other.relative == pytest.approx(1.0)


class Halved(nn.Module):
    """Takes and gives bfloat16, under one name."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(2.0, dtype=torch.bfloat16))

    def forward(self, x: torch.Tensor) -> Mapping[str, torch.Tensor]:
        assert x.dtype is torch.bfloat16
        return {"x": x * self.scale}


def test_a_model_of_bfloat16_is_compared_though_numpy_has_no_such_type() -> None:
    model, x = Halved(), torch.randn(3, 4).bfloat16()
    call = Call((), {"x": x}, model(x))
    form = form_of(call, without_labels=False)
    assert [*form.outputs] == ["x_out"], "ONNX knows a tensor by its name alone"
    runtime = ModuleRuntime(copy.deepcopy(model), [*form.outputs], torch.device("cpu"), ["x"])
    answer = runtime({"x": x.float().numpy()})
    found = Difference()
    found.take(call.outputs(), answer)
    assert found.relative == 0
    assert answer["x_out"].dtype == np.float32
    assert found.same == found.counted == 3

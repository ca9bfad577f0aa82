"""Weights as a file and as a hash: equal hashes mean equal bits, whatever the tensors are like."""

import io
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from phalanx.config.schema import PrecisionName
from phalanx.exit.codes import ConfigError
from phalanx.train.checkpoint import weights
from phalanx.train.checkpoint.extra_state import extra_state_of, from_plain, to_plain
from phalanx.train.optim.precision import choose
from tests.zoo.models import Complex, Copies, Expanded, ExtraState


class Odd(nn.Module):
    """One tensor of every kind that a model may hold."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.first = nn.Linear(4, 4)
        self.tied = nn.Linear(4, 4)
        self.tied.weight = self.first.weight
        self.frozen = nn.Parameter(torch.randn(3), requires_grad=False)
        self.halves = nn.Parameter(torch.randn(5, 3, dtype=torch.bfloat16))
        self.scale = nn.Parameter(torch.randn(()))
        self.empty = nn.Parameter(torch.empty(0, 7))
        self.norm = nn.BatchNorm2d(2)
        self.transposed = nn.Parameter(torch.randn(6, 2).t())
        self.conv = nn.Conv2d(3, 2, 3).to(memory_format=torch.channels_last)
        whole = torch.randn(10)
        self.register_buffer("left", whole[:6])
        self.register_buffer("right", whole[4:])
        self.register_buffer("mask", torch.tensor([True, False]))
        self.register_buffer("count", torch.tensor(seed))


def sha256(model: nn.Module) -> str:
    return weights.weights_sha256(model.state_dict())


def test_what_was_saved_is_what_is_loaded(tmp_path: Path) -> None:
    one, other = Odd(1), Odd(2)
    assert sha256(one) != sha256(other)
    weights.save(one.state_dict(), tmp_path / "w.safetensors")
    weights.load(other, tmp_path / "w.safetensors")
    assert sha256(one) == sha256(other)
    assert other.tied.weight is other.first.weight
    assert other.conv.weight.is_contiguous(memory_format=torch.channels_last)
    assert not other.transposed.is_contiguous()
    assert not other.frozen.requires_grad


def test_hash_does_not_depend_on_memory_order_and_sees_names_shapes_dtypes_and_every_bit() -> None:
    base = {"a": torch.tensor([[1.0, 2.0], [3.0, 4.0]]), "b": torch.zeros(())}
    known = weights.weights_sha256(base)
    assert weights.weights_sha256(dict(reversed(base.items()))) == known
    assert weights.weights_sha256({**base, "a": base["a"].t().contiguous().t()}) == known
    others = [
        {**base, "a": base["a"].reshape(4)},
        {**base, "a": base["a"].view(torch.int32)},
        {"a": base["a"], "c": base["b"]},
        {**base, "b": torch.tensor(-0.0)},
        {**base, "a": torch.tensor([[1.0, 2.0], [3.0, 4.0000005]])},
        {"a": base["a"]},
    ]
    assert len({known, *(weights.weights_sha256(other) for other in others)}) == len(others) + 1


def test_every_tensor_that_does_not_fit_is_named_and_nothing_is_changed(tmp_path: Path) -> None:
    weights.save(nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1, bias=False)).state_dict(), tmp_path / "w.safetensors")
    model = nn.Sequential(nn.Linear(2, 4), nn.Linear(4, 1), nn.ReLU(), nn.Linear(1, 1, bias=False))
    before = sha256(model)
    with pytest.raises(ConfigError) as error:
        weights.load(model, tmp_path / "w.safetensors")
    for part in ("0.weight is (3, 2) there and (4, 2) in the model", "0.bias is (3,)", "1.bias is missing there"):
        assert part in str(error.value)
    assert "3.weight is missing there" in str(error.value)
    assert "1.weight is (1, 3) there" in str(error.value)
    assert sha256(model) == before


@pytest.mark.parametrize("content", [b"", b"\x80\x04K\x01.", b"\xff" * 100])
def test_file_that_is_no_safetensors_is_an_error_for_people(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "w.safetensors").write_bytes(content)
    with pytest.raises(ConfigError, match="cannot be read as safetensors"):
        weights.load(nn.Linear(1, 1), tmp_path / "w.safetensors")


@pytest.mark.parametrize("kind", [Complex, Copies, Expanded])
def test_complex_numbers_copies_and_expanded_buffers_arrive(tmp_path: Path, kind: type[nn.Module]) -> None:
    for asked in (PrecisionName.fp32, PrecisionName.fp64):
        one, other = (choose(asked, None).converted(kind()) for _ in range(2))
        with torch.no_grad():
            for parameter in one.parameters():
                parameter.add_(1)
        weights.save(one.state_dict(), tmp_path / "w.safetensors")
        weights.load(other, tmp_path / "w.safetensors")
        assert sha256(one) == sha256(other)


class Deaf(nn.Linear):
    """Loads nothing."""

    def load_state_dict(self, state: Any) -> None:  # type: ignore[override]
        return None


def test_weights_that_do_not_arrive_are_named(tmp_path: Path) -> None:
    weights.save(nn.Linear(2, 3).state_dict(), tmp_path / "w.safetensors")
    with pytest.raises(ConfigError, match="weight, bias did not arrive in the model"):
        weights.load(Deaf(2, 3), tmp_path / "w.safetensors")


def test_extra_state_goes_through_a_file_that_no_code_runs_from(tmp_path: Path) -> None:
    values: list[Any] = [
        None,
        1,
        2.5,
        1j,
        "text",
        b"bytes",
        torch.ones(2),
        torch.float16,
        torch.Size([1]),
        {1: [2, (3,)]},
    ]
    values += [OrderedDict(a={1, 2}), np.float32(0.5), np.int64(3), np.ones((2, 3), dtype=np.int16), np.zeros(())]
    torch.save(to_plain(values, "here"), tmp_path / "extra.pt")
    found = from_plain(torch.load(tmp_path / "extra.pt", weights_only=True))
    assert repr(found) == repr(values)
    assert from_plain(to_plain(io.BytesIO(b"saved"), "here")).read() == b"saved"


def test_extra_state_that_only_pickle_could_keep_is_refused_with_its_type() -> None:
    with pytest.raises(ConfigError, match=r"extra state of here holds a pathlib\.PosixPath"):
        to_plain({"path": Path("/")}, "here")


def test_extra_state_is_loaded_with_the_weights_or_stays_what_it_is(tmp_path: Path) -> None:
    one, other = ExtraState(), ExtraState()
    one.samples, other.samples = 5, 7
    weights.save(one.state_dict(), tmp_path / "w.safetensors")
    weights.load(other, tmp_path / "w.safetensors")
    assert other.samples == 7
    kept = {name: from_plain(value) for name, value in extra_state_of(one.state_dict()).items()}
    weights.load(other, tmp_path / "w.safetensors", kept)
    assert other.samples == 5

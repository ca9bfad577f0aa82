"""A file of torch.export is looked through before torch reads it, which would run what it holds."""

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.export import Dim

from phalanx.exit.codes import ConfigError
from phalanx.train.deploy.runtimes.restricted_pt2 import load_pt2


class Runs:
    """A pickle that makes a file where it is read."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> Any:
        return (Path.touch, (self._path,))


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 2)
        self.table = nn.Buffer(torch.ones(()), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.layer(x)
        return logits.relu()[:, : x.shape[0] + 1] + self.table


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pt2") / "model.pt2"
    torch.export.save(torch.export.export(Net(), (torch.randn(3, 4),), dynamic_shapes=({0: Dim.DYNAMIC},)), path)
    return path


def changed(
    program: Path, to: Path, change: Callable[[str, bytes], bytes], more: dict[str, bytes] | None = None
) -> Path:
    with zipfile.ZipFile(program) as old, zipfile.ZipFile(to, "w") as new:
        for name in old.namelist():
            new.writestr(name, change(name, old.read(name)))
        for name, content in (more or {}).items():
            new.writestr(f"model/{name}", content)
    return to


def edited(change: Callable[[Any], None]) -> Callable[[str, bytes], bytes]:
    def edit(name: str, content: bytes) -> bytes:
        if not name.endswith("models/model.json"):
            return content
        found = json.loads(content)
        change(found)
        return json.dumps(found).encode()

    return edit


def test_what_torch_wrote_is_read(program: Path) -> None:
    module = load_pt2(program)
    for size in (1, 7):
        assert module(torch.randn(size, 4)).shape == (size, 2)


def test_what_would_run_code_is_refused(program: Path, tmp_path: Path) -> None:
    marker, bad = tmp_path / "ran", tmp_path / "bad.pt2"
    held = io.BytesIO()
    torch.save(Runs(marker), held)
    code = f"__import__('pathlib').Path({str(marker)!r}).touch()"

    def target(found: Any) -> None:
        found["graph_module"]["graph"]["nodes"][0]["target"] = "torch.hub.load"

    def size(found: Any) -> None:
        next(iter(found["graph_module"]["graph"]["tensor_values"].values()))["sizes"][0] = {
            "as_expr": {"expr_str": code, "hint": None}
        }

    def guard(found: Any) -> None:
        found["guards_code"] = [f"{code} is None"]

    def symbol(found: Any) -> None:
        found["range_constraints"] = {code: {"min_val": 0, "max_val": 1}}

    def pickled(name: str, content: bytes) -> bytes:
        return content.replace(b'"use_pickle": false', b'"use_pickle": true')

    def same(name: str, content: bytes) -> bytes:
        return content

    def sample(name: str, content: bytes) -> bytes:
        return held.getvalue() if "/sample_inputs/" in name else content

    plants: list[tuple[Callable[[str, bytes], bytes], dict[str, bytes]]] = [
        *((edited(change), {}) for change in (target, size, guard, symbol)),
        (pickled, {}),
        (sample, {}),
        (same, {"data/constants/custom_obj_0": held.getvalue()}),
        (same, {"data/aotinductor/model/model.so": b""}),
        (same, {"data/weights/model.pt": held.getvalue()}),
    ]
    for change, more in plants:
        with pytest.raises(ConfigError, match="could run code of whoever made it"):
            load_pt2(changed(program, bad, change, more))
        assert not marker.exists()
    bad.write_bytes(program.read_bytes()[:-100])
    with pytest.raises(ConfigError, match=r"bad\.pt2 (cannot be read as a program of torch.export|holds the file)"):
        load_pt2(bad)

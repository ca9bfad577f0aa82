"""An export is kept where it answers as the trained model does, and only then."""

import errno
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

import phalanx
from phalanx.deployment.layout import read_manifest
from phalanx.exit.codes import ConfigError, NoRoom, ParityMissed
from phalanx.train.checkpoint import weights
from phalanx.train.deploy.compare import compare
from phalanx.train.deploy.observed import Observed, observe
from phalanx.train.deploy.parts import TrainedParts
from phalanx.train.deploy.runtimes.load_export import load_export
from phalanx.train.deploy.runtimes.runtime import Arrays, Runtime
from phalanx.train.distributed.world import World
from tests.ranks import Nursery, Starter
from tests.train.built_parts import kept_switches
from tests.train.deploy.exporting import exported, job, parts_of, trained

pytestmark = pytest.mark.xdist_group("export")  # they look at one run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, nursery: Nursery) -> Path:
    return trained(Starter(nursery, tmp_path_factory.mktemp("export")))


@pytest.fixture(scope="module")
def observed(run: Path) -> Iterator[tuple[TrainedParts, World, Observed]]:
    with kept_switches():
        parts, world = parts_of(job(run, "onnx"))
        yield parts, world, observe(parts, world)


@pytest.mark.parametrize("to", ["safetensors", "torch-export"])
def test_an_export_answers_as_the_run_does_and_says_what_it_is(run: Path, to: str) -> None:
    """Batches of any size; the averaged weights, which are those that the run is evaluated with."""
    report = exported(job(run, to, which="last"))
    folder = run / "export" / to
    assert Path(report["export"]) == folder
    (line,) = [line for line in phalanx.load(run).metrics("eval") if line["step"] == 20]
    assert report["metric"] == report["metric_exported"] == line["accuracy"]
    assert report["max_difference"] <= report["tolerance"]
    assert json.loads((folder / "report.json").read_text())["metrics"]["eval/loss"]["exported"] == pytest.approx(
        line["loss"]
    )
    loaded, model = load_export(folder), phalanx.load(run).model("last")
    assert {info.shape for info in loaded.manifest.inputs} == {("batch", 1, 28, 28)}
    for size in (1, 7, 64):
        images = torch.randn(size, 1, 28, 28)
        (name,) = (info.name for info in loaded.manifest.inputs)
        with torch.no_grad():
            expected = model(images).numpy()
        assert np.allclose(loaded.runtime({name: images.numpy()})["output"], expected, atol=1e-6)
    assert loaded.labels == list("0123456789")
    assert loaded.manifest.postprocessing == {"kind": "classes", "output": "output"}
    (form,) = loaded.preprocessing.values()
    assert form == {"kind": "image", "channels": 1, "size": [28, 28], "mean": [0.3053], "std": [0.3247]}
    assert line["accuracy"] != 0
    assert "| eval/accuracy |" in (folder / "README.md").read_text()
    assert not list((run / "export").glob(".*"))


def test_a_wrong_exporter_is_found_and_what_was_exported_before_stays(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exported(job(run, "torch-export"))
    folder, real = run / "export" / "torch-export", torch.export.export
    before = (folder / "export.json").read_text()

    def wrong(flat: nn.Module, *args: Any, **options: Any) -> Any:
        made = real(flat, *args, **options)
        name, last = [(name, tensor) for name, tensor in made.state_dict.items() if tensor.dim() == 1][-1]
        made.state_dict[name] = nn.Parameter(last.detach().roll(1) + 1.0)  # as of classes in another order
        return made

    monkeypatch.setattr(torch.export, "export", wrong)
    with pytest.raises(ParityMissed, match="The outputs of the exported model differ"):
        exported(job(run, "torch-export"))
    with pytest.raises(ParityMissed):
        exported(job(run, "torch-export", out=run / "new"))
    assert not (run / "new").exists()
    assert (folder / "export.json").read_text() == before
    read_manifest(folder)
    assert not list((run / "export").glob(".*"))


class Answers(Runtime):
    """The trained model's own answers, changed."""

    def __init__(self, parts: TrainedParts, observed: Observed, change: Any) -> None:
        self.told = "a test"
        self._parts, self._observed, self._change = parts, observed, change

    def __call__(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        with torch.no_grad():
            tensors = {name: torch.from_numpy(array) for name, array in inputs.items()}
            found = self._observed.form.call(self._parts.model, tensors)
        return {name: self._change(tensor.numpy().copy()) for name, tensor in found.items()}


def first_rows(logits: NDArray[Any]) -> NDArray[Any]:
    """Right for as many samples as an exporter was shown."""
    logits[7:] = logits[:1]
    return logits


def flattened(logits: NDArray[Any]) -> NDArray[Any]:
    """Near in numbers, and of one class: nothing but the metric tells."""
    logits[:, 0] += 0.4 * np.abs(logits).max()
    return logits


def lost(logits: NDArray[Any]) -> NDArray[Any]:
    logits[-1, -1] = np.nan
    return logits


@pytest.mark.parametrize(
    ("change", "dtype", "told"),
    [
        (first_rows, "fp32", "on the whole evaluation set"),
        (flattened, "int8", "eval/(loss|accuracy) of the exported model is"),
        (lost, "int8", "differ from the trained one's by inf"),
        (lambda logits: logits[:, :9], "fp32", r"has the shape \(2, 9\), and of the trained one \(2, 10\)"),
        (lambda logits: logits + 1e-2, "fp32", "The outputs of the exported model differ"),
    ],
)
def test_what_answers_otherwise_is_told(
    observed: tuple[TrainedParts, World, Observed], change: Any, dtype: str, told: str
) -> None:
    parts, world, seen = observed
    with pytest.raises(ParityMissed, match=told):
        compare(parts, seen, Answers(parts, seen, change), "onnx", dtype, world)


def test_what_answers_alike_is_kept(observed: tuple[TrainedParts, World, Observed]) -> None:
    parts, world, seen = observed
    found = compare(parts, seen, Answers(parts, seen, lambda logits: logits + 1e-5), "onnx", "fp32", world)
    assert found.metric == found.metric_exported
    assert 0 < found.max_difference < found.tolerance
    assert {1, 7} < set(found.batches)


def test_a_full_disk_and_a_folder_that_is_closed_leave_nothing(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(weights, "save", full)
        with pytest.raises(NoRoom, match="No space left on device"):
            exported(job(run, "safetensors", out=run / "out"))
    assert not (run / "out").exists()
    with monkeypatch.context() as patch:
        patch.setattr(
            "tempfile.mkdtemp", lambda **_: (_ for _ in ()).throw(PermissionError(errno.EACCES, "Permission denied"))
        )
        with pytest.raises(ConfigError, match=r"Permission denied. Type --out with a folder that can be"):
            exported(job(run, "safetensors", out=run / "out"))
    assert not list(run.glob(".*staging*"))


def test_a_damaged_export_is_not_loaded(run: Path, tmp_path: Path) -> None:
    exported(job(run, "safetensors", out=tmp_path / "e"))
    model, manifest = tmp_path / "e" / "model.safetensors", tmp_path / "e" / "export.json"
    content = model.read_bytes()
    model.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(ConfigError, match=r"model.safetensors is not what was exported"):
        load_export(tmp_path / "e")
    model.write_bytes(content)
    whole = manifest.read_text()
    for text in (
        whole[:-40],
        "[]",
        whole.replace('"format": 1', '"format": 2'),
        whole.replace("model.safet", "../model.safet"),
    ):
        manifest.write_text(text)
        with pytest.raises(ConfigError, match=r"damaged|of format 2|not what was exported"):
            load_export(tmp_path / "e")
    with pytest.raises(ConfigError, match=r"is no export: it has no export.json"):
        load_export(tmp_path)


def test_a_model_of_a_stranger_is_built_under_trust_alone(run: Path, tmp_path: Path) -> None:
    exported(job(run, "safetensors", out=tmp_path / "e"))
    manifest = tmp_path / "e" / "export.json"
    manifest.write_text(manifest.read_text().replace("phalanx.models.MLP", "os.system"))
    with pytest.raises(ConfigError, match="trust"):
        load_export(tmp_path / "e")

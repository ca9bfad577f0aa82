"""The files of an export, RUN/export/FORMAT/, and what its manifest says."""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..common.files import as_json, open_regular, read_text, sha256
from ..exit.codes import ConfigError
from ..run_folder.names import MODEL

EXPORT = "export"  # in a run's folder
MANIFEST = "export.json"
PREPROCESSING = "preprocessing.json"
LABELS = "labels.json"
REPORT = "report.json"
CARD = "README.md"
FORMAT = 1

SAFETENSORS, TORCH_EXPORT, ONNX, TENSORRT, HF = "safetensors", "torch-export", "onnx", "tensorrt", "hf"
MODELS = {  # the file that holds the model
    SAFETENSORS: MODEL,
    TORCH_EXPORT: "model.pt2",
    ONNX: "model.onnx",
    TENSORRT: "model.engine",
    HF: MODEL,
}
FP32, FP16, BF16, INT8 = "fp32", "fp16", "bf16", "int8"
DTYPES = (FP32, FP16, BF16, INT8)


@dataclass(frozen=True)
class TensorInfo:
    """A tensor that goes in or comes out. A dimension that varies has a name: "batch", or that of a length."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]


@dataclass(frozen=True)
class Manifest:
    """What an export is. `model` is the config's node of it where the runtime builds it, else None."""

    to: str
    dtype: str
    run: str
    step: int
    weights_sha256: str
    config_digest: str
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    postprocessing: Mapping[str, Any]
    model: Mapping[str, Any] | None
    files: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def text(self) -> str:
        return as_json({"format": FORMAT, **asdict(self)})


def facts_of(folder: Path, names: list[str]) -> dict[str, dict[str, Any]]:
    """Size and hash of each file."""
    return {name: {"size": (folder / name).stat().st_size, "sha256": sha256(folder / name)} for name in names}


def read_manifest(folder: Path) -> Manifest:
    """The manifest of an export, all files held against their hashes. Raises ConfigError."""
    try:
        found = json.loads(read_text(folder / MANIFEST))
        version = found.pop("format")
        if version != FORMAT:
            raise ConfigError(f"{folder} is an export of format {version}, and this version of Phalanx reads {FORMAT}")
        inputs, outputs = (
            tuple(TensorInfo(each["name"], each["dtype"], tuple(each["shape"])) for each in found[key])
            for key in ("inputs", "outputs")
        )
        manifest = Manifest(**{**found, "inputs": inputs, "outputs": outputs})
        files = {str(name): (int(told["size"]), str(told["sha256"])) for name, told in manifest.files.items()}
    except FileNotFoundError:
        raise ConfigError(
            f"{folder} is no export: it has no {MANIFEST}. Type a folder that `phalanx export` has made"
        ) from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"{folder / MANIFEST} is damaged: {type(error).__name__}: {error}. Export it anew") from None
    if manifest.to not in MODELS or MODELS[manifest.to] not in files:
        raise ConfigError(
            f"{folder / MANIFEST} is damaged: it names no model of a format that is known. Export it anew"
        )
    for name, known in files.items():
        check_file(folder, name, known)
    return manifest


def check_file(folder: Path, name: str, known: tuple[int, str]) -> None:
    """Raise ConfigError where a file is not the one that was written."""
    path = folder / name
    inside = not Path(name).is_absolute() and ".." not in Path(name).parts
    try:
        if inside:
            os.close(open_regular(path))
        same = inside and path.stat().st_size == known[0] and sha256(path) == known[1]
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}. Export it anew") from None
    if not same:
        raise ConfigError(f"{path} is not what was exported: its hash is another. Export it anew")


def read_preprocessing(folder: Path) -> dict[str, Any]:
    """What makes each input of a raw one, by name. Raises ConfigError."""
    return dict(_json(folder / PREPROCESSING, dict))


def read_labels(folder: Path) -> list[str] | None:
    """The names of the classes. Raises ConfigError."""
    found = _json(folder / LABELS, list | None)
    return None if found is None else [str(name) for name in found]


def _json(path: Path, kind: Any) -> Any:
    try:
        found = json.loads(read_text(path))
        if not isinstance(found, kind):
            raise ValueError(f"it holds a {type(found).__name__}")
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path} cannot be read: {error}. Export it anew") from None
    return found

"""Load an export: its manifest, what makes its inputs, its labels, and the model in its runtime."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from phalanx.deployment.layout import (
    HF,
    MODELS,
    ONNX,
    SAFETENSORS,
    TENSORRT,
    TORCH_EXPORT,
    Manifest,
    read_labels,
    read_manifest,
    read_preprocessing,
)
from phalanx.targets.instantiate import Targets
from phalanx.targets.trust import Trust

from ...checkpoint import weights
from ...engine.parts.config_targets import KINDS
from .hugging_face_runtime import load_hugging_face
from .module_runtime import ModuleRuntime
from .onnx_runtime import OnnxRuntime
from .restricted_pt2 import load_pt2
from .runtime import Runtime
from .tensorrt_runtime import TensorRTRuntime


@dataclass(frozen=True)
class LoadedExport:
    """`preprocessing` says of each input what makes it of a raw one; docs/deployment.md lists the forms."""

    manifest: Manifest
    preprocessing: Mapping[str, Any]
    labels: Sequence[str] | None
    runtime: Runtime


def load_export(
    folder: Path, device: str = "cpu", trust: Sequence[str] = (), threads: int | None = None
) -> LoadedExport:
    """The export in `folder`, all of its files held against their hashes. Raises ConfigError.

    Nothing of it is run but the model's operators; a model that has to be built (`safetensors`, `hf`) is of a listed class
    or of a package of `trust`.
    """
    manifest = read_manifest(folder)
    runtime = load_runtime(folder, manifest, device, Targets(KINDS, Trust(trust)), threads)
    return LoadedExport(manifest, read_preprocessing(folder), read_labels(folder), runtime)


def load_runtime(
    folder: Path, manifest: Manifest, device: str, builder: Targets, threads: int | None = None
) -> Runtime:
    """The model of an export in its runtime. `builder` builds a model that has to be built."""
    path, outputs, where = folder / MODELS[manifest.to], [info.name for info in manifest.outputs], torch.device(device)
    halves = [info.name for info in manifest.inputs if info.dtype == "bfloat16"]
    loaders: Mapping[str, Callable[[], Runtime]] = {
        ONNX: lambda: OnnxRuntime(path, device, threads),
        TENSORRT: lambda: TensorRTRuntime(path),
        TORCH_EXPORT: lambda: ModuleRuntime(_on(load_pt2(path), where), outputs, where, halves),
        SAFETENSORS: lambda: ModuleRuntime(_on(_built(path, manifest, builder), where), outputs, where, halves),
        HF: lambda: ModuleRuntime(_on(load_hugging_face(folder, manifest, builder), where), outputs, where, halves),
    }
    return loaders[manifest.to]()


def _built(path: Path, manifest: Manifest, builder: Targets) -> nn.Module:
    """A fresh model with the weights of the file."""
    model = builder.build(dict(manifest.model or {}), "model", nn.Module)
    weights.load(model, path)
    return model.eval()


def _on(module: nn.Module, device: torch.device) -> nn.Module:
    return module if device.type == "cpu" else module.to(device)

"""What goes with an exported model: preprocessing, labels, the meaning of its answer, and the model card."""

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch.utils.data import Dataset, Subset

from phalanx.deployment.forms import TENSOR, checked_postprocessing, checked_preprocessing
from phalanx.deployment.layout import HF, MODELS, ONNX, SAFETENSORS, TENSORRT, TORCH_EXPORT, Manifest

from ..compare import Comparison
from ..parts import TrainedParts


def preprocessing_of(parts: TrainedParts, inputs: Sequence[str]) -> dict[str, Any]:
    """The form of each input: what the data set's method `preprocessing` says. Raises ConfigError."""
    dataset = _whole(next(iter(parts.datasets.values())))
    say = getattr(dataset, "preprocessing", None)
    if not callable(say):
        return {name: dict(TENSOR) for name in inputs}
    return checked_preprocessing(say(), inputs, type(dataset).__name__)


def with_files(forms: Mapping[str, Mapping[str, Any]], folder: Path) -> dict[str, Any]:
    """The forms with the file of each tokenizer copied into the folder of the export, and named as it is there."""
    found: dict[str, Any] = {}
    for name, form in forms.items():
        found[name] = dict(form)
        if form.get("file") is not None:
            found[name]["file"] = "tokenizer.json" if len(forms) == 1 else f"{name}.tokenizer.json"
            shutil.copyfile(form["file"], folder / found[name]["file"])
    return found


def postprocessing_of(parts: TrainedParts, outputs: Sequence[str]) -> dict[str, Any]:
    """What the task's method `postprocessing` says. Raises ConfigError."""
    return checked_postprocessing(parts.task.postprocessing(), outputs, type(parts.task).__name__)


def labels_of(parts: TrainedParts) -> list[str] | None:
    """`classes` of a data set, as torchvision's have them, else `id2label` of a model of transformers; None without."""
    for dataset in map(_whole, parts.datasets.values()):
        classes = getattr(dataset, "classes", None)
        if isinstance(classes, Sequence) and not isinstance(classes, str):
            return [str(name) for name in classes]
    settings = getattr(parts.model, "config", None)
    known = getattr(settings, "id2label", None)
    return [str(known[i]) for i in sorted(known)] if isinstance(known, Mapping) and known else None


def _whole(dataset: Dataset[Any]) -> Dataset[Any]:
    while isinstance(dataset, Subset):
        dataset = dataset.dataset
    return dataset


def card(parts: TrainedParts, manifest: Manifest, found: Comparison, labels: Sequence[str] | None) -> str:
    """The model card, in Markdown."""
    data = {name: node for name, node in vars(parts.config.data).items() if name in ("train", "eval", "test") and node}
    licence = [_licence(dataset) for dataset in parts.datasets.values()]
    metrics = "\n".join(
        f"| {name} | {_number(pair['trained'])} | {_number(pair['exported'])} |" for name, pair in found.metrics.items()
    )
    tensors = "\n".join(
        f"| {way} | `{info.name}` | {info.dtype} | {' x '.join(map(str, info.shape)) or 'one number'} |"
        for way, infos in (("input", manifest.inputs), ("output", manifest.outputs))
        for info in infos
    )
    parameters = sum(parameter.numel() for parameter in parts.model.parameters())
    about = {
        "run": manifest.run,
        "step": manifest.step,
        "config_digest": manifest.config_digest,
        "weights_sha256": manifest.weights_sha256,
        "format": f"{manifest.to}, {manifest.dtype}",
    }
    classes = "not known" if labels is None else f"{len(labels)}: {', '.join(labels[:20])}{' …' if labels[20:] else ''}"
    return "\n".join(
        [
            f"# {manifest.run}",
            "",
            *(f"- {name}: {value}" for name, value in about.items()),
            f"- model: `{parts.config.model.get('_target_')}`, {parameters:,} parameters",
            f"- task: `{parts.config.task.get('_target_')}`",
            f"- classes: {classes}",
            "",
            "## Data",
            "",
            *(f"- {name}: `{json.dumps(node, ensure_ascii=False, default=str)}`" for name, node in data.items()),
            f"- licence: {next(filter(None, licence), 'the data set does not say; ask who made it')}",
            "",
            "## Metrics",
            "",
            f"Over {found.samples} samples, of the trained model and of this one in {found.runtime}:",
            "",
            "| metric | trained | exported |",
            "|---|---|---|",
            metrics,
            "",
            f"Outputs differ by at most {found.max_difference:.3g} of the largest one (tolerance {found.tolerance:g}), in "
            f"batches of {', '.join(map(str, found.batches))} and over the whole set.",
            *found.notes,
            "",
            "## How to load it",
            "",
            "| | name | dtype | shape |",
            "|---|---|---|---|",
            tensors,
            "",
            "`preprocessing.json` says what makes an input of a raw one, `labels.json` what the classes are called.",
            "",
            *(f"    {line}" for line in _loads(manifest)),
            "",
        ]
    )


def _loads(manifest: Manifest) -> list[str]:
    path, inputs = MODELS[manifest.to], ", ".join(f'"{info.name}": {info.name}' for info in manifest.inputs)
    named = ", ".join(f"{info.name}={info.name}" for info in manifest.inputs)
    return {
        ONNX: [
            "import onnxruntime",
            f'session = onnxruntime.InferenceSession("{path}")',
            f"session.run(None, {{{inputs}}})",
        ],
        TORCH_EXPORT: ["import torch", f'model = torch.export.load("{path}").module()', f"model({named})"],
        SAFETENSORS: [
            "from safetensors.torch import load_file",
            f'model.load_state_dict(load_file("{path}"))  # of the class that export.json names',
        ],
        HF: [f'model = {str((manifest.model or {}).get("class")).rpartition(".")[2]}.from_pretrained(".")'],
        TENSORRT: [
            "import tensorrt",
            f'tensorrt.Runtime(tensorrt.Logger()).deserialize_cuda_engine(open("{path}", "rb").read())',
        ],
    }[manifest.to]


def _licence(dataset: Dataset[Any]) -> str | None:
    found = getattr(_whole(dataset), "licence", None)
    return found if isinstance(found, str) else None


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"


def write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")

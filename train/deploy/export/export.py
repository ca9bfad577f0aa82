"""Export the model of a run: write it, load it back, compare it, and only then put it where it belongs."""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from phalanx.common.files import finite
from phalanx.compose.compose import Composed
from phalanx.compose.digest import digest
from phalanx.deployment import layout
from phalanx.deployment.job import Job, write_answer
from phalanx.exit.codes import ConfigError, Failure

from ...checkpoint import weights
from ...distributed.world import World
from ..call_form import without_cache
from ..compare import Comparison, compare
from ..observed import Observed, observe
from ..parts import in_full_precision, trained_parts
from ..runtimes.load_export import load_runtime
from . import to_hugging_face, to_onnx, to_safetensors, to_tensorrt, to_torch_export
from .described import card, labels_of, postprocessing_of, preprocessing_of, with_files, write_json
from .exporting import Exporting
from .staging import Staging, staged

_WRITERS: Mapping[str, Callable[[Exporting], Mapping[str, Any] | None]] = {
    layout.SAFETENSORS: to_safetensors.write,
    layout.TORCH_EXPORT: to_torch_export.write,
    layout.ONNX: to_onnx.write,
    layout.TENSORRT: to_tensorrt.write,
    layout.HF: to_hugging_face.write,
}
_CHECKS: Mapping[str, Callable[[], None]] = {layout.ONNX: to_onnx.check, layout.TENSORRT: to_tensorrt.check}


def export(job: Job, composed: Composed, world: World, afterwards: list[Callable[[Failure], None]]) -> None:
    """One rank alone calls it. Raises ConfigError, ParityMissed where the two models differ, and NoRoom."""
    to, dtype = str(job.options["to"]), str(job.options["dtype"])
    if world.size > 1:
        raise ConfigError(f"An export is made by one process, and {world.size} ranks were started. Type phalanx export")
    _CHECKS.get(to, lambda: None)()
    target = Path(str(job.options["out"] or Path(job.run, layout.EXPORT, to)))
    with staged(target) as staging:
        afterwards.append(lambda _: staging.remove())
        parts = trained_parts(job, in_full_precision(composed), world, spread=False)
        with without_cache(parts.model):
            observed = observe(parts, world)
        world.watchdog.at("build", parts.checkpoint.step)
        exporting = Exporting(parts, observed, staging.folder, dtype)
        node = _WRITERS[to](exporting)
        found = _finish(job, exporting, node, staging, world)
    write_answer([{"export": str(target), "to": to, "dtype": dtype, "step": parts.checkpoint.step, **found}])


def _finish(
    job: Job, exporting: Exporting, node: Mapping[str, Any] | None, staging: Staging, world: World
) -> dict[str, Any]:
    """Compare what was written, write all that goes with it, and commit. Returns the report."""
    parts, observed, folder, to = exporting.parts, exporting.observed, staging.folder, str(job.options["to"])
    manifest = _manifest(job, exporting, node)
    preprocessing = with_files(preprocessing_of(parts, list(observed.form.inputs)), folder)
    labels = labels_of(parts)
    runtime = load_runtime(folder, manifest, "cpu", parts.builder)
    with without_cache(parts.model):
        found = compare(parts, observed, runtime, to, exporting.dtype, world)
    write_json(folder / layout.PREPROCESSING, preprocessing)
    write_json(folder / layout.LABELS, labels)
    report = _report(found, observed)
    write_json(folder / layout.REPORT, report)
    (folder / layout.CARD).write_text(card(parts, manifest, found, labels), encoding="utf-8")
    names = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    manifest = replace(manifest, files=layout.facts_of(folder, names))
    (folder / layout.MANIFEST).write_text(manifest.text(), encoding="utf-8")
    staging.commit()
    return report


def _manifest(job: Job, exporting: Exporting, node: Mapping[str, Any] | None) -> layout.Manifest:
    parts, form = exporting.parts, exporting.observed.form
    inputs, outputs = (
        tuple(
            layout.TensorInfo(name, str(dtype).removeprefix("torch."), shapes[name]) for name, dtype in dtypes.items()
        )
        for dtypes, shapes in ((form.inputs, form.shapes), (form.outputs, form.answers))
    )
    return layout.Manifest(
        to=str(job.options["to"]),
        dtype=exporting.dtype,
        run=Path(job.run).name,
        step=parts.checkpoint.step,
        weights_sha256=weights.weights_sha256(parts.model.state_dict()),
        config_digest=digest(parts.config),
        inputs=inputs,
        outputs=outputs,
        postprocessing=postprocessing_of(parts, list(form.outputs)),
        model=None if node is None else dict(node),
    )


def _report(found: Comparison, observed: Observed) -> dict[str, Any]:
    plain = asdict(found)
    lengths = {name: size for name, size in observed.largest.items() if name != "batch"}
    report: dict[str, Any] = json.loads(json.dumps(finite({**plain, **({"lengths": lengths} if lengths else {})})))
    return report

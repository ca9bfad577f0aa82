"""ONNX, by torch's exporter; int8 by ONNX Runtime's quantization after training, calibrated on training samples."""

import importlib.util
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from torch.export import ExportedProgram

from phalanx.deployment.layout import INT8, MODELS, ONNX
from phalanx.exit.codes import ConfigError

from ..call_form import CallForm
from .calibration import calibration_inputs
from .exporting import Exporting
from .program import names_of, program_of, quiet

_PACKAGES = ("onnx", "onnxscript", "onnxruntime")


def check() -> None:
    """Raise ConfigError where a package is missing, before anything is computed."""
    if lacking := [name for name in _PACKAGES if importlib.util.find_spec(name) is None]:
        raise ConfigError(f"--to onnx needs {', '.join(lacking)}. Type pip install 'phalanx[onnx]'")


def write(exporting: Exporting) -> None:
    path = exporting.folder / MODELS[ONNX]
    program = program_of(exporting)
    if exporting.dtype != INT8:
        write_onnx(program, exporting.observed.form, path)
        return
    whole = path.with_name("fp32.onnx")
    write_onnx(program, exporting.observed.form, whole)
    _quantize(whole, path, list(calibration_inputs(exporting)))
    for left in path.parent.glob("fp32.onnx*"):
        left.unlink()


def write_onnx(program: ExportedProgram, form: CallForm, path: Path) -> None:
    """Raises ConfigError for an operator that ONNX has not."""
    names = names_of(program, form)
    with quiet():
        try:
            made = torch.onnx.export(
                program, dynamo=True, input_names=[*form.inputs], output_names=[*form.outputs], verbose=False
            )
        except Exception as error:
            line = next(
                (line.strip() for line in reversed(str(error).splitlines()) if line.strip()), type(error).__name__
            )
            raise ConfigError(
                f"torch's exporter makes no ONNX of this model: {line}. Type --to torch-export, which takes all operators"
            ) from error
        assert made is not None
        _name_dimensions(made.model, names)
        made.save(path)


def _name_dimensions(model: Any, names: Mapping[str, str]) -> None:
    """`batch` in the place of s77, also within expressions such as 4*s77."""
    import onnx_ir

    def renamed(text: str) -> str:
        return re.sub(r"\w+", lambda found: names.get(found[0], found[0]), text)

    for value in [*model.graph.inputs, *model.graph.outputs]:
        if value.shape is not None:
            value.shape = onnx_ir.Shape(
                [
                    renamed(dim.value) if isinstance(dim, onnx_ir.SymbolicDim) and dim.value else dim
                    for dim in value.shape
                ]
            )


def _quantize(whole: Path, path: Path, inputs: list[dict[str, NDArray[Any]]]) -> None:
    """Weights and activations of 8 bits, their ranges from what `inputs` come to."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):  # type: ignore[misc]  # it has no types
        def __init__(self) -> None:
            self._left: Iterator[dict[str, NDArray[Any]]] = iter(inputs)

        def get_next(self) -> dict[str, NDArray[Any]] | None:
            return next(self._left, None)

    ready = whole.with_name("fp32.onnx.ready")
    try:
        quant_pre_process(whole, ready, skip_symbolic_shape=True)
        quantize_static(
            ready,
            path,
            Reader(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
    except Exception as error:
        raise ConfigError(
            f"ONNX Runtime does not quantize this model: {str(error).strip().splitlines()[0]}. Type --dtype fp32 or fp16"
        ) from error

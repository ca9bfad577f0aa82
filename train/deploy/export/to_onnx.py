"""ONNX, by torch's exporter; int8 by ONNX Runtime's quantization after training, calibrated on training samples."""

import copy
import importlib.util
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray

from phalanx.deployment.layout import INT8, MODELS, ONNX
from phalanx.exit.codes import ConfigError

from ...checkpoint.preserve import unchanged
from ..call_form import Flat
from .calibration import calibration_inputs
from .exporting import HALVES, Exporting
from .program import OneSizeError, distinct, names_of, program_of, quiet

_PACKAGES = ("onnx", "onnxscript", "onnxruntime")


def check() -> None:
    """Raise ConfigError where a package is missing, before anything is computed."""
    if lacking := [name for name in _PACKAGES if importlib.util.find_spec(name) is None]:
        raise ConfigError(f"--to onnx needs {', '.join(lacking)}. Type pip install 'phalanx[onnx]'")


def write(exporting: Exporting) -> None:
    path = exporting.folder / MODELS[ONNX]
    if exporting.dtype != INT8:
        write_onnx(exporting, path)
        return
    whole = path.with_name("fp32.onnx")
    write_onnx(exporting, whole)
    with quiet():
        _quantize(whole, path, list(calibration_inputs(exporting)))
    for left in path.parent.glob("fp32.onnx*"):
        left.unlink()


def write_onnx(exporting: Exporting, path: Path) -> None:
    """Raises ConfigError for an operator that ONNX has not."""
    form = exporting.observed.form
    try:
        program = program_of(exporting)
    except OneSizeError as error:
        _trace(exporting, path, error)
        return
    names = names_of(program, form)
    with quiet():
        try:
            made = torch.onnx.export(
                program, dynamo=True, input_names=[*form.inputs], output_names=[*form.outputs], verbose=False
            )
        except Exception as error:
            raise _refusal(error) from error
        assert made is not None
        _name_dimensions(made.model, names)
        made.save(path)


def _trace(exporting: Exporting, path: Path, refused: ConfigError) -> None:
    """By torch's older exporter, which keeps a recurrent layer whole.

    It records one call, so what it made of sizes that the model's Python decides by shows in the comparison alone.
    """
    form, half, model = exporting.observed.form, HALVES.get(exporting.dtype), exporting.parts.model
    if half is not None:
        model = copy.deepcopy(model).to(half)
    flat = Flat(model, form, half).eval()

    free = {
        name: {i: dim for i, dim in enumerate(dims) if isinstance(dim, str)}
        for name, dims in {**form.shapes, **form.answers}.items()
    }
    call = distinct(exporting)
    with quiet(), unchanged(model), torch.no_grad():
        try:
            torch.onnx.export(
                _InOrder(flat, [*form.inputs]).eval(),
                tuple(call.inputs().values()),
                path,
                dynamo=False,
                input_names=[*form.inputs],
                output_names=[*form.outputs],
                dynamic_axes=free,
            )
        except Exception as error:
            raise refused from error


class _InOrder(torch.nn.Module):
    """Takes tensors in the order of their names, and answers with a tuple, as a trace has it."""

    def __init__(self, flat: Flat, names: Sequence[str]) -> None:
        super().__init__()
        self.flat = flat
        self._names = names

    def forward(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(self.flat(**dict(zip(self._names, tensors, strict=True))).values())


def _refusal(error: Exception) -> ConfigError:
    text = re.sub(r"\x1b\[\d+m", "", str(error))
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    told = next((line for line in lines if line.startswith("<class")), lines[0] if lines else type(error).__name__)
    return ConfigError(
        f"torch's exporter makes no ONNX of this model: {told}. Type --to torch-export, which takes all operators"
    )


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

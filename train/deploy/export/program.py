"""The model as a program of torch.export, from which torch-export, onnx and tensorrt are made."""

import copy
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.export import Dim, ExportedProgram

from phalanx.exit.codes import ConfigError

from ...checkpoint.preserve import unchanged
from ..call_form import Call, CallForm, Flat, without_cache
from .exporting import HALVES, Exporting

_HINTS = {  # what a message of torch's holds, and what to do then
    "data-dependent": (
        "its forward decides by the values of a tensor, as in `if x.sum() > 0`, `.item()`, `.tolist()` or a mask that "
        "picks rows. Compute both ways and take torch.where, or leave the decision out of the forward"
    ),
    "specialized": (
        "its forward works for one size alone: a size is written into it as a number, as in x.view(2, -1), or it has a "
        "recurrent layer, which torch.export unrolls. Take sizes from x.shape"
    ),
}


class OneSizeError(ConfigError):
    """torch.export follows the model for one size alone, as it does recurrent layers, which it unrolls."""


def program_of(exporting: Exporting) -> ExportedProgram:
    """Any batch, and any length where lengths vary. Raises ConfigError where the model is no such program."""
    form, half = exporting.observed.form, HALVES.get(exporting.dtype)
    model = exporting.parts.model
    if half is not None:
        model = copy.deepcopy(model).to(half)
    call = distinct(exporting)
    free = {
        name: {i: Dim.DYNAMIC for i, dim in enumerate(dims) if isinstance(dim, str)}
        for name, dims in form.shapes.items()
    }
    with unchanged(model), quiet(), without_cache(model), torch.no_grad():
        try:
            flat = Flat(model, form, half).eval()
            program = torch.export.export(flat, (), call.inputs(), dynamic_shapes=free, strict=False)
        except Exception as error:
            refusal = _refusal(error, model)
            raise (OneSizeError if _HINTS["specialized"] in refusal else ConfigError)(refusal) from error
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # paths and lines of the machine that it was made on
    return program


def names_of(program: ExportedProgram, form: CallForm) -> dict[str, str]:
    """The names of the program's symbols for sizes: `batch`, `length`, …"""
    inputs, found = dict(zip(program.graph_signature.user_inputs, form.inputs, strict=True)), dict[str, str]()
    for node in program.graph.nodes:
        name = inputs.get(node.name) if node.op == "placeholder" else None
        for size, dim in zip(node.meta["val"].shape, form.shapes[name], strict=True) if name else ():
            if isinstance(dim, str):
                found.setdefault(str(size), dim)
    return found


def distinct(exporting: Exporting) -> Call:
    """A call in which no two dimensions that vary are as long as each other by chance: they would be taken for one."""
    form = exporting.observed.form

    def clashes(call: Call) -> int:
        sizes: dict[str, int] = {}
        for name, tensor in call.inputs().items():
            sizes |= {
                dim: size for dim, size in zip(form.shapes[name], tensor.shape, strict=True) if isinstance(dim, str)
            }
        return (len(sizes) - len(set(sizes.values()))) + sum(size < 2 for size in sizes.values())

    return min(exporting.observed.calls, key=clashes)


def _refusal(error: Exception, model: nn.Module) -> str:
    text = str(error)
    words = ("data-dependent", "unbacked", "Could not guard", "item()", "dynamic control flow")
    kind = "data-dependent" if any(word in text for word in words) else ""
    kind = "specialized" if not kind and ("pecialized" in text or "onstraint" in text) else kind
    told = _HINTS.get(kind) or next((line.strip() for line in text.splitlines() if line.strip()), type(error).__name__)
    return (
        f"{type(model).__name__} is no program that torch.export can follow: {told}. The weights can be exported all "
        "the same: type --to safetensors"
    )


@contextmanager
def quiet() -> Iterator[None]:
    """Exporters warn of each operator and of themselves."""
    logging.disable(logging.CRITICAL)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            logging.disable(logging.NOTSET)

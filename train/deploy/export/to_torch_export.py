"""torch.export: a program of operators, in a file that torch reads without the model's code."""

import torch

from phalanx.deployment.layout import MODELS, TORCH_EXPORT
from phalanx.exit.codes import ConfigError

from .exporting import Exporting
from .program import program_of, quiet


def write(exporting: Exporting) -> None:
    program = program_of(exporting)
    with quiet():
        program.example_inputs = ((), exporting.observed.calls[0].inputs())
        try:
            torch.export.save(program, exporting.folder / MODELS[TORCH_EXPORT])
        except (TypeError, ValueError, AssertionError) as error:
            raise ConfigError(f"torch.export does not write this model: {error}. Type --to safetensors") from error

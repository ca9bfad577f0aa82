"""What the programs that predict by an export share: their arguments of which export and where, and its predictor."""

import argparse
from pathlib import Path

from ..runtimes.load_export import LoadedExport, load_export
from .answers import Answers
from .predictor import FormPredictor
from .raw_inputs import RawInputs


def export_parser() -> argparse.ArgumentParser:
    """The arguments that `loaded` reads; a program adds its own."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--trust", action="append", default=[])
    return parser


def loaded(asked: argparse.Namespace) -> LoadedExport:
    """Raises ConfigError."""
    return load_export(asked.folder, asked.device, asked.trust, asked.threads)


def predictor_of(export: LoadedExport, folder: Path, top: int) -> FormPredictor:
    """Raises ConfigError where the export's files cannot be used."""
    manifest = export.manifest
    dtypes = {info.name: info.dtype for info in manifest.inputs}
    shapes = {info.name: info.shape for info in manifest.inputs}
    inputs = RawInputs(export.preprocessing, dtypes, shapes, folder)
    return FormPredictor(inputs, export.runtime, Answers(manifest.postprocessing, export.labels, top))

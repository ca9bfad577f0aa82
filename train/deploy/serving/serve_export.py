"""The program of `phalanx serve EXPORT`."""

import argparse
import sys

from phalanx.exit.codes import ConfigError, ExitCode
from phalanx.exit.interpreter_exit import run_without_teardown
from phalanx.exit.messages import refuse

from ..prediction.export_predictor import export_parser, loaded, predictor_of

_MIB = 2**20


def main() -> None:
    parser = export_parser()
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--limit-mib", type=int, required=True)
    asked = parser.parse_args()
    try:
        _serve(asked)
    except ConfigError as error:
        refuse(error, True)
    sys.exit(ExitCode.FINISHED)


def _serve(asked: argparse.Namespace) -> None:
    try:
        from .server import Server, serve
    except ImportError as error:
        raise ConfigError(f"phalanx serve needs aiohttp ({error}). Type: pip install 'phalanx[serve]'") from None
    export = loaded(asked)
    predictor, manifest = predictor_of(export, asked.folder, 1), export.manifest
    facts = {
        **{"run": manifest.run, "step": manifest.step, "format": manifest.to, "dtype": manifest.dtype},
        **{"weights_sha256": manifest.weights_sha256, "runtime": export.runtime.told, "inputs": dict(predictor.kinds)},
    }
    server = Server(predictor, facts, asked.limit_mib * _MIB)
    serve(server, asked.host, asked.port, f"{manifest.run}, step {manifest.step}, {manifest.to}")


if __name__ == "__main__":
    run_without_teardown(main)

"""`phalanx serve`: an export's predictions over HTTP."""

import os
from collections.abc import Sequence
from pathlib import Path

import click

from .export_program import export_arguments, program


@click.command()
@click.argument("export", type=Path)
@click.argument("settings", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="0: any that is free.")
@click.option("--limit-mib", type=click.IntRange(min=1), default=16, show_default=True, help="The longest request.")
def serve(export: Path, settings: Sequence[str], host: str, port: int, limit_mib: int) -> None:
    """Answer predictions of EXPORT, a folder that `phalanx export` has made, over HTTP.

    POST /predict takes {"input": …} or {"inputs": […]} as JSON, or the content of one picture, sound or text as it is; GET
    /health tells of the model and of latencies. What cannot be predicted gets 400 and {"error": …}. Ends at SIGTERM or
    Ctrl-C, once it has answered what was asked.

    KEY=VALUE are world.device=cuda, train.threads=2, and run.trust=[mypkg] for a model of your own that has to be built.
    """
    listening = [f"--host={host}", f"--port={port}", f"--limit-mib={limit_mib}"]
    command = program("serving.serve_export", [*export_arguments(export, settings), *listening])
    os.execv(command[0], command)

"""`phalanx report`: writes an HTML page about runs or a sweep, which needs no server and no network."""

import time
from collections.abc import Sequence
from pathlib import Path

import click

from phalanx.common.files import write_atomic
from phalanx.exit.codes import ConfigError
from phalanx.run_folder import names

from ..common.find_run import find_runs, find_sweep
from ..common.show import show
from ..reporting import history
from ..reporting.run_page import run_page
from ..reporting.sweep_page import sweep_page
from ..sweep import results


@click.command()
@click.argument("runs", nargs=-1, metavar="RUN...", required=True)
@click.option("--root", type=Path, default=Path("runs"), show_default=True, help="The folder that holds the runs.")
@click.option(
    "-o", "--out", type=Path, help=f"The file. Left out: {names.REPORT} in the run's folder, or beside the runs."
)
def report(runs: Sequence[str], root: Path, out: Path | None) -> None:
    """Write one HTML page about RUN, a run or a sweep, by its folder or its name; or one that compares several runs.

    Learning curves, what evaluations show, what the wall time went into, what happened, how the configs differ, what ran
    where; of a sweep the best config, what it depends on, and all trials. The page is whole in itself, and all may go on
    meanwhile.
    """
    sweep = find_sweep(runs[0], root) if len(runs) == 1 else None
    if sweep is not None:
        file, text = out or sweep / names.REPORT, sweep_page(results.read(sweep))
    else:
        folders = list({folder.resolve(): folder for folder in find_runs(runs, root)}.values())
        file = out or _home(folders) / names.REPORT
        text = run_page([history.read(folder) for folder in folders], time.time())
    try:
        write_atomic(file, text)
    except OSError as error:
        raise ConfigError(f"{file} cannot be written: {error.strerror}. Type --out with another file") from None
    show(str(file))


def _home(folders: Sequence[Path]) -> Path:
    """The run's own folder, or the one that holds all the runs, or this one."""
    if len(folders) == 1:
        return folders[0]
    parents = {folder.resolve().parent: folder.parent for folder in folders}
    return next(iter(parents.values())) if len(parents) == 1 else Path()

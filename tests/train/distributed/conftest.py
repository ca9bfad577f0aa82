import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.ranks import torchrun

Launch = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Launch]:
    """Starts torchrun with runs below `tmp_path`; whatever still runs at the end of a test is ended by its launcher."""
    started: list[subprocess.Popen[str]] = []

    def start(
        ranks: int, *overrides: str, environ: dict[str, str], options: tuple[str, ...]
    ) -> "subprocess.Popen[str]":
        arguments = [f"run.root={tmp_path}", "train.threads=1", *overrides]
        started.append(torchrun(ranks, arguments, tmp_path, environ, *options))
        return started[-1]

    yield start
    for process in started:
        if process.poll() is None:
            process.terminate()
            process.communicate()

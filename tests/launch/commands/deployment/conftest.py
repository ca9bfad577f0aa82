"""A run with an export, and pictures of the first digits that it was evaluated on."""

import os
import subprocess
from pathlib import Path

import pytest
from PIL import Image

from phalanx.train.data.digits import read
from tests.ranks import QUIET, Nursery, Results, Starter
from tests.train.deploy.exporting import MLP
from tests.warm_command import run_warm

DIGITS = 12


@pytest.fixture(scope="package")
def predicting(tmp_path_factory: pytest.TempPathFactory, nursery: Nursery) -> Results:
    """A run, an export of it, and a folder of pictures: the first digits that it was evaluated on."""
    folder = tmp_path_factory.mktemp("predict")
    found = Starter(nursery, folder).train(1, *MLP, f"eval.predictions={DIGITS}", name="r")
    exported = command(nursery, found.folder, "export", str(found.folder), "--to", "safetensors")
    assert exported.returncode == 0, exported.stderr
    (folder / "pictures").mkdir()
    digits, _, held_out = read()
    for i, pixels in enumerate(digits[held_out][:DIGITS]):
        Image.fromarray(pixels).save(folder / f"pictures/{i:02}.png")
    return found


def command(nursery: Nursery, run: Path, verb: str, *words: str, said: str = "") -> "subprocess.CompletedProcess[str]":
    cwd = run.parent.parent
    (cwd / "said").write_text(said)
    stdin = os.open(cwd / "said", os.O_RDONLY)  # which the command closes
    return run_warm(nursery, [verb, *words], cwd=cwd, env={**os.environ, **QUIET}, stdin=stdin)

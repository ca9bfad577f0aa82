import os
import signal
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.launch.command import Launcher, inside, marked


@pytest.fixture
def launcher(tmp_path: Path) -> Iterator[Launcher]:
    """Starts `phalanx` in a folder of the test's own; whatever it leaves running or lying about fails the test."""
    made = Launcher(tmp_path, uuid.uuid4().hex)
    yield made
    forgotten = [process for process in made.started if process.poll() is None]
    for process in forgotten:
        process.kill()
    left = {*marked(made.mark), *inside(tmp_path)}
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    for process in made.started:
        process.communicate()  # which returns when nobody can write to it any more
    assert forgotten or not left, "processes were left running"
    if all(process.returncode >= 0 for process in made.started):  # who is killed cannot tidy up
        assert not [path for path in (tmp_path / "tmp").iterdir() if path.name.startswith(("phalanx", "torchelastic"))]

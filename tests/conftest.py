import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.ranks import Nursery, Starter


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """With `-n 2 --dist=loadgroup` tests that wait much of their time do that beside all the others."""
    for item in items:
        item.add_marker(pytest.mark.xdist_group("waits" if item.path.parent.name in ("slurm", "sweep") else "works"))


@pytest.fixture(scope="session", autouse=True)
def signals() -> Iterator[None]:
    """What tests start hears every signal, also where pytest itself was told to ignore some, as by nohup or a script's &.

    A handler that does nothing ignores as well, and ends with exec, which SIG_IGN does not.
    """
    ignored = [heard for heard in (signal.SIGHUP, signal.SIGINT) if signal.getsignal(heard) is signal.SIG_IGN]
    for heard in ignored:
        signal.signal(heard, lambda *_: None)
    yield
    for heard in ignored:
        signal.signal(heard, signal.SIG_IGN)


@pytest.fixture(scope="session")
def nursery() -> Iterator[Nursery]:
    made = Nursery()
    yield made
    made.close()


@pytest.fixture
def starter(nursery: Nursery, tmp_path: Path) -> Starter:
    """Starts worlds in a folder of the test's own."""
    return Starter(nursery, tmp_path)

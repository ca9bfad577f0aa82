from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.ranks import Nursery, Starter


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """With `-n 2 --dist=loadgroup` tests that wait much of their time do that beside all the others."""
    for item in items:
        item.add_marker(pytest.mark.xdist_group("waits" if item.path.parent.name in ("slurm", "sweep") else "works"))


@pytest.fixture(scope="session")
def nursery() -> Iterator[Nursery]:
    made = Nursery()
    yield made
    made.close()


@pytest.fixture
def starter(nursery: Nursery, tmp_path: Path) -> Starter:
    """Starts worlds in a folder of the test's own."""
    return Starter(nursery, tmp_path)

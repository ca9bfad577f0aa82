from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.ranks import Nursery, Starter


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests on Slurm wait most of their time, so with `-n 2 --dist=loadgroup` they do that beside all the others."""
    for item in items:
        item.add_marker(pytest.mark.xdist_group("slurm" if "slurm" in item.path.parent.name else "here"))


@pytest.fixture(scope="session")
def nursery() -> Iterator[Nursery]:
    made = Nursery()
    yield made
    made.close()


@pytest.fixture
def starter(nursery: Nursery, tmp_path: Path) -> Starter:
    """Starts worlds in a folder of the test's own."""
    return Starter(nursery, tmp_path)

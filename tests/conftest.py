from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.ranks import Nursery, Starter


@pytest.fixture(scope="session")
def nursery() -> Iterator[Nursery]:
    made = Nursery()
    yield made
    made.close()


@pytest.fixture
def starter(nursery: Nursery, tmp_path: Path) -> Starter:
    """Starts worlds in a folder of the test's own."""
    return Starter(nursery, tmp_path)

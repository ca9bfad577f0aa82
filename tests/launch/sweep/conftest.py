from pathlib import Path

import pytest

from tests.launch.sweep.sweeper import Sweeper
from tests.ranks import Nursery


@pytest.fixture
def sweeper(nursery: Nursery, tmp_path: Path) -> Sweeper:
    return Sweeper(tmp_path, nursery)

from pathlib import Path

import pytest

from tests.launch.sweep.sweeper import Sweeper


@pytest.fixture
def sweeper(tmp_path: Path) -> Sweeper:
    return Sweeper(tmp_path)

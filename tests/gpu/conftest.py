from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.gpu.launched import Gpus
from tests.train.built_parts import kept_switches


@pytest.fixture(autouse=True)
def _enough_gpus(request: pytest.FixtureRequest) -> None:
    needed = 2 if request.node.get_closest_marker("multi_gpu") else 1
    found = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if found < needed:
        pytest.skip(f"needs {needed} GPU(s), and torch sees {found}")


@pytest.fixture
def device() -> torch.device:
    return torch.device("cuda", 0)


@pytest.fixture
def gpus(tmp_path: Path) -> Gpus:
    """Starts runs on the GPUs in a folder of the test's own."""
    return Gpus(tmp_path)


@pytest.fixture
def switches() -> Iterator[None]:
    """Torch's switches are put back after the test."""
    with kept_switches():
        yield

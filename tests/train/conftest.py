from collections.abc import Iterator

import pytest

from tests.train.built_parts import kept_switches


@pytest.fixture
def switches() -> Iterator[None]:
    """Torch's switches are put back after the test."""
    with kept_switches():
        yield

import gc
import os
import signal
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.ranks import ROOT, Nursery, Starter

settings.register_profile("same", deadline=None, derandomize=True, database=None)  # on a busy machine and every time
settings.load_profile("same")
gc.disable()  # a fifth of the time that it takes to import and collect, in each process of pytest


@pytest.hookimpl(tryfirst=True)
def pytest_collection_finish(session: pytest.Session) -> None:
    """xdist 3.8 adds a test's group to its id where pytest 9.2 does not look any more, and would group nothing."""
    gc.freeze()
    gc.enable()
    for item in session.items:
        if (grouped := vars(item).get("_nodeid")) is not None and hasattr(item, "_id"):
            item._id = type(item._id).parse(grouped)


def pytest_xdist_auto_num_workers() -> int:
    """More than there are cores: tests wait for processes half of the time."""
    return 2 * len(os.sched_getaffinity(0))


@pytest.hookimpl(tryfirst=True)  # before xdist looks for groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that share a cluster or GPUs run one after the other; each other test runs wherever there is room.

    Files that name a group themselves have another cluster, as tests wait for Slurm for half of their time. What runs one
    after the other begins first, for else it is what is left at the end, with a core that idles.
    """
    for item in items:
        shared = item.path.relative_to(ROOT / "tests").parts[0]
        if shared in ("slurm", "gpu") and item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(shared))
    items.sort(key=lambda item: item.get_closest_marker("xdist_group") is None)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """With PHALANX_SKIPS_NOTHING=1 what cannot run here is a failure."""
    report = yield
    if report.skipped and os.environ.get("PHALANX_SKIPS_NOTHING") == "1":
        report.outcome = "failed"
        report.longrepr = f"PHALANX_SKIPS_NOTHING=1 is set, and this was left out: {report.longreprtext}"
    return report


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

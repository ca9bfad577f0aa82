"""Data workers: what they give, and how they and the rank come to their ends."""

import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from multiprocessing import forkserver
from operator import itemgetter
from pathlib import Path
from typing import Any

import pytest

from phalanx.exit import user_error
from phalanx.exit.codes import ConfigError
from phalanx.train.loading import data_hash
from phalanx.train.loading.loader import Fetcher, Timeline
from phalanx.train.loading.shard import Span
from phalanx.train.loading.workers.workers import run_in_worker
from tests.ranks import ROOT
from tests.train.loading.batches import loader, source, told
from tests.train.loading.datasets import (
    Batched,
    Dice,
    DiceByBatch,
    Dying,
    Failing,
    Lazy,
    Listed,
    Numbers,
    Surroundings,
    Unsendable,
)

pytestmark = pytest.mark.xdist_group("data workers")  # they share a fork server, which imports torch

TIMELINE = Timeline(step=0, position=0, steps=6, end=6 * 16, global_batch=16)
SPANS = [Span(i * 8, i * 8 + 8) for i in range(8)]


@pytest.fixture(autouse=True)
def _none_left() -> Iterator[None]:
    """An exception keeps the batches that it came from, and so their workers."""
    yield
    for worker in multiprocessing.active_children():
        worker.kill()
        worker.join()


@pytest.mark.parametrize("dataset", [Numbers(50), Batched(50), Listed(50), Dice(), DiceByBatch()])
@pytest.mark.parametrize("workers", [1, 2])
def test_workers_give_the_batches_that_the_rank_would_fetch(dataset: Numbers, workers: int) -> None:
    here = told(loader(dataset, TIMELINE, micro_batch=4).from_step(1))
    assert told(loader(dataset, TIMELINE, micro_batch=4, workers=workers).from_step(1)) == here


def test_the_data_set_is_only_used_in_workers(tmp_path: Path) -> None:
    """It may open files with its first sample, and then could not be sent to a worker any more."""
    (tmp_path / "bytes").write_bytes(bytes(range(50)))
    dataset = Lazy(tmp_path / "bytes")
    made = loader(dataset, TIMELINE, workers=2)
    expected = run_in_worker(data_hash.hash_data, dataset, workers=2)
    made.sample_batch()
    assert told(made.from_step(0)) == told(loader(Lazy(tmp_path / "bytes"), TIMELINE).from_step(0))
    assert data_hash.hash_data(dataset) == expected


def test_a_data_set_that_cannot_be_sent_is_explained(tmp_path: Path) -> None:
    (tmp_path / "bytes").touch()
    with pytest.raises(ConfigError, match=r"cannot be sent.*BufferedReader.*data.workers=0"):
        loader(Unsendable(50, tmp_path / "bytes"), TIMELINE, workers=1).sample_batch()


def test_a_lambda_that_cannot_be_sent_is_explained(tmp_path: Path) -> None:
    (tmp_path / "bytes").write_bytes(bytes(range(50)))
    dataset = Lazy(tmp_path / "bytes")
    vars(dataset)["transform"] = lambda sample: sample
    with pytest.raises(ConfigError, match=r"cannot be sent.*a lambda.*as a function of a module.*data.workers=0"):
        loader(dataset, TIMELINE, workers=1).sample_batch()


def test_what_a_worker_raises_arrives_with_its_traceback() -> None:
    with pytest.raises(OSError, match=r"sample \d+ cannot be read") as raised:
        list(Fetcher(source(Failing(50)), 2, 2, False).batches(SPANS))
    assert "in _read" in user_error.user_traceback(raised.value)
    assert "train/loading/fetch.py" not in user_error.user_traceback(raised.value)
    assert "train/loading/fetch.py" in str(raised.value.__cause__)
    assert f"sample {user_error.context_of(raised.value)['sample']} cannot be read" in str(raised.value)


def test_a_killed_worker_is_named() -> None:
    with pytest.raises(RuntimeError, match=r"worker with pid \d+ was ended by SIGKILL.*data.workers"):
        list(Fetcher(source(Dying(50)), 2, 2, False).batches(SPANS))


@pytest.mark.parametrize("taken", [1, len(SPANS)])
def test_no_worker_outlives_its_batches(taken: int) -> None:
    batches = Fetcher(source(Numbers(50)), 2, 2, False).batches(SPANS)
    for _ in range(taken):
        next(batches)
    assert len(multiprocessing.active_children()) == 2
    del batches
    assert not multiprocessing.active_children()


def test_surroundings_of_a_data_set() -> None:
    """One thread, no matter what the rank has; and programs it starts hear the signals that it does not."""
    found = run_in_worker(itemgetter(0), Surroundings(1), workers=1)
    assert found["threads"] == 1
    assert found["ended"] == -signal.SIGTERM
    assert found["pid"] != os.getpid()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2])
def test_a_signal_to_the_whole_job_ends_no_worker(number: signal.Signals) -> None:
    """Nor the fork server, whose end would look like theirs."""
    server: Any = forkserver._forkserver
    batches = Fetcher(source(Numbers(50)), 2, 1, False).batches(SPANS)
    next(batches)
    for pid in [server._forkserver_pid, *(worker.pid for worker in multiprocessing.active_children())]:
        os.kill(pid, number)
    assert len(list(batches)) == len(SPANS) - 1
    assert len(list(Fetcher(source(Numbers(50)), 1, 1, False).batches(SPANS))) == len(SPANS)


RANK = """
import os
import sys
from multiprocessing import forkserver
from pathlib import Path
import torch
from phalanx.train.loading.workers.fork_server import fork_server
if "forked" in sys.argv:
    fork_server()
    server = forkserver._forkserver._forkserver_pid
    assert Path(f"/proc/{server}/cmdline").read_bytes() == Path("/proc/self/cmdline").read_bytes()
from tests.train.loading.batches import source
from tests.train.loading.datasets import Numbers
from phalanx.train.loading.loader import Fetcher
from phalanx.train.loading.shard import Span
batches = Fetcher(source(Numbers(50, Path(sys.argv[1]))), 2, 1, False).batches([Span(i, i + 1) for i in range(50)])
next(batches)
if "forked" in sys.argv:
    assert forkserver._forkserver._forkserver_pid == server, "there is no other"
if "killed" in sys.argv:
    os.kill(os.getpid(), 9)
"""


@pytest.mark.parametrize(("how", "code"), [("", 0), ("forked", 0), ("forked killed", -9)])
def test_a_rank_that_leaves_early_is_not_kept_by_its_workers(how: str, code: int, tmp_path: Path) -> None:
    """Although the batches are still referred to. All that it started has ended once its output is closed."""
    command = [sys.executable, "-c", RANK, str(tmp_path / "journal"), *how.split()]
    rank = subprocess.run(command, cwd=ROOT, timeout=60, capture_output=True, text=True)
    assert (rank.returncode, rank.stderr) == (code, "")

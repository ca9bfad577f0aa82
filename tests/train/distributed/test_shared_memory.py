"""Ranks of one machine add up in memory that they share, and nobody else takes part."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from subprocess import PIPE

import pytest
import torch
import torch.distributed as dist

from phalanx.train.distributed.shared_memory import SharedMemoryReducer, connect, listen
from tests.ranks import QUIET, ROOT, until
from tests.train.distributed.all_reduce_ranks import MACHINES, digest, drawn

_LARGE = 2**20 // 4 + 3  # numbers: more than one slot
CASES = [("float32", 1), ("float64", 1000), ("float32", _LARGE), ("bfloat16", 77), ("float64", 3)]

pytestmark = pytest.mark.xdist_group("shared memory")  # they share the process that ranks are forked from


@pytest.fixture(scope="module")
def adders() -> Iterator["subprocess.Popen[str]"]:
    """The process that ranks are forked from."""
    cases = (f"{dtype}:{numbers}" for dtype, numbers in CASES)
    command = [sys.executable, "-m", "tests.train.distributed.all_reduce_ranks", *cases]
    environ = {**os.environ, **QUIET}
    with subprocess.Popen(command, env=environ, cwd=ROOT, stdin=PIPE, stdout=PIPE, text=True) as process:
        yield process
        assert process.stdin is not None
        process.stdin.close()


def summed(adders: "subprocess.Popen[str]", ranks: int, without: str = "") -> list[list[str]]:
    """The way that each rank's sums went, and what it warned of; all sums are right to the last bit."""
    assert adders.stdin is not None
    assert adders.stdout is not None
    print(json.dumps({"ranks": ranks, "without": without}), file=adders.stdin, flush=True)
    answers = json.loads(adders.stdout.readline())
    ways = [answer.pop(0) for answer in answers]
    assert len(ways) == ranks
    for case, (dtype, numbers) in enumerate(CASES):
        total = drawn(0, dtype, numbers)
        for rank in range(1, ranks):
            total += drawn(rank, dtype, numbers)
        assert [answer[case] for answer in answers] == [digest(total)] * ranks, (dtype, numbers)
    return ways


@pytest.mark.parametrize("ranks", [2, 3, pytest.param(5, marks=pytest.mark.slow)])
def test_the_sum_has_the_bits_of_adding_in_the_order_of_the_ranks(adders: "subprocess.Popen[str]", ranks: int) -> None:
    assert summed(adders, ranks) == [["through memory"]] * ranks


@pytest.mark.parametrize(
    ("without", "why"),
    [
        ("memory", "File too large"),
        ("memfd", "this Python has no os.memfd_create"),
        ("sockets", "Operation not permitted"),
    ],
)
def test_where_a_rank_has_no_shared_memory_all_go_through_gloo_with_the_same_bits_and_one_line_says_so(
    adders: "subprocess.Popen[str]", without: str, why: str
) -> None:
    first, *others = summed(adders, 3, without)
    assert others == [["through gloo"]] * 2
    assert first[0] == "through gloo"
    (line,) = first[1:]
    assert line.startswith("the ranks share no memory on this machine (")
    assert why in line
    assert line.endswith(") and sum through gloo in its place, which takes longer")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount")
@pytest.mark.parametrize("without", MACHINES, ids=["full", "missing"])
def test_ranks_share_memory_also_where_dev_shm_is_full_or_missing(
    adders: "subprocess.Popen[str]", without: str
) -> None:
    assert summed(adders, 2, without) == [["through memory"]] * 2


@contextmanager
def two_ranks(
    timeout_s: float = 10.0, before: Callable[[bytes], object] = bytes
) -> Iterator[tuple[SharedMemoryReducer, SharedMemoryReducer]]:
    """Both ends in this process, the second connected from a thread; `before` gets the first one's name ahead of it."""
    with listen(2, timeout_s) as one, listen(2, timeout_s) as other:
        names = [one.getsockname(), other.getsockname()]
        before(names[0])
        with ThreadPoolExecutor(1) as thread:
            connecting = thread.submit(connect, 1, other, names, timeout_s)
            first = connect(0, one, names, timeout_s)
            second = connecting.result()
    try:
        yield first, second
    finally:
        first.close()
        second.close()


def test_a_fast_rank_never_overwrites_what_a_slow_one_still_has_to_read() -> None:
    """One rank waits for the other once a turn; between two words of it the first one is a turn ahead."""

    def turns(reducer: SharedMemoryReducer, factor: float) -> list[float]:
        sums = []
        for turn in range(200):
            tensor = torch.full((20_000,), factor * turn)
            reducer.all_reduce(tensor)
            sums.append(float(tensor.sum()))
        return sums

    with two_ranks() as (first, second), ThreadPoolExecutor(1) as thread:
        theirs = thread.submit(turns, second, 1.0)
        assert turns(first, 2.0) == theirs.result() == [3.0 * turn * 20_000 for turn in range(200)]


def test_a_rank_that_is_gone_and_one_that_is_late_are_told_apart() -> None:
    with two_ranks() as (first, second):
        second.close()
        with pytest.raises(dist.DistNetworkError, match="Connection closed by peer"):
            first.all_reduce(torch.ones(3))
    with two_ranks() as (first, second), ThreadPoolExecutor(1) as thread:
        adding = thread.submit(first.all_reduce, torch.ones(3))
        until(lambda: first.awaited() == [1])
        second.all_reduce(torch.ones(3))
        adding.result()
        assert first.awaited() == second.awaited() == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
def test_another_user_who_calls_is_not_let_in() -> None:
    """Who calls first, and says that it is rank 1."""
    code = (
        "import os, socket, sys; os.setuid(65534); caller = socket.socket(socket.AF_UNIX);"
        "caller.connect(bytes.fromhex(sys.argv[1])); caller.send(b'\\1\\0\\0\\0'); print(flush=True);"
        "sys.exit(0 if caller.recv(9) == b'' else 9)"
    )
    intruders = []

    def intrude(name: bytes) -> None:
        intruders.append(subprocess.Popen([sys.executable, "-c", code, name.hex()], stdout=PIPE))
        assert intruders[0].stdout is not None
        intruders[0].stdout.readline()  # it has called

    with two_ranks(before=intrude) as (first, second), ThreadPoolExecutor(1) as thread:
        intruders[0].communicate(timeout=10)
        assert intruders[0].returncode != 9, "it got an answer"
        ours, theirs = torch.ones(2), torch.ones(2)
        adding = thread.submit(second.all_reduce, theirs)
        first.all_reduce(ours)
        adding.result()
        assert ours.tolist() == theirs.tolist() == [2.0, 2.0]

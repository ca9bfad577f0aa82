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
from tests.train.distributed.adder import digest, drawn

_LARGE = 2**20 // 4 + 3  # numbers: more than one slot
CASES = [("float32", 1), ("float64", 1000), ("float32", _LARGE), ("bfloat16", 77), ("float64", 3)]


@pytest.fixture(scope="module")
def adders() -> Iterator["subprocess.Popen[str]"]:
    command = [
        sys.executable,
        "-m",
        "tests.train.distributed.adder",
        *(f"{dtype}:{numbers}" for dtype, numbers in CASES),
    ]
    environ = {**os.environ, **QUIET}
    with subprocess.Popen(command, env=environ, cwd=ROOT, stdin=PIPE, stdout=PIPE, text=True) as process:
        yield process
        assert process.stdin is not None
        process.stdin.close()


@pytest.mark.parametrize(("ranks", "without"), [(2, False), (3, False), (5, False), (3, True)])
def test_the_sum_has_the_bits_of_adding_in_the_order_of_the_ranks(
    adders: "subprocess.Popen[str]", ranks: int, without: bool
) -> None:
    """Also `without` memory for the first rank to share, when all go through gloo."""
    assert adders.stdin is not None
    assert adders.stdout is not None
    print(json.dumps({"ranks": ranks, "without": without}), file=adders.stdin, flush=True)
    answers = json.loads(adders.stdout.readline())
    assert len(answers) == ranks
    assert {answer.pop(0) for answer in answers} == {"through gloo" if without else "through memory"}
    for case, (dtype, numbers) in enumerate(CASES):
        total = drawn(0, dtype, numbers)
        for rank in range(1, ranks):
            total += drawn(rank, dtype, numbers)
        assert [answer[case] for answer in answers] == [digest(total)] * ranks, (dtype, numbers)


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

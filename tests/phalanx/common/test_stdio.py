"""What is printed reaches whoever reads it, and nobody who does not read it holds a rank up."""

import os
import pty
import socket
import termios
import time
from collections.abc import Callable
from io import TextIOWrapper

import pytest

from phalanx.common.stdio import Output
from tests.ranks import Starter

LINES = [f"line {number} of what a long run says" for number in range(20_000)]  # more than a pipe and Output hold


def read_all(descriptor: int) -> bytes:
    """What can be read now."""
    os.set_blocking(descriptor, False)
    found = b""
    while True:
        try:
            found += os.read(descriptor, 1 << 16)
        except BlockingIOError:
            return found


def stopped_terminal() -> tuple[int, int]:
    reader, writer = pty.openpty()
    termios.tcflow(writer, termios.TCOOFF)  # as Ctrl-S does
    return reader, writer


def both_ends() -> tuple[int, int]:
    reader, writer = socket.socketpair()
    return reader.detach(), writer.detach()


@pytest.mark.parametrize("ends", [os.pipe, both_ends, stopped_terminal], ids=["pipe", "socket", "stopped terminal"])
def test_a_late_reader_gets_what_fitted_and_a_word_on_what_did_not(ends: Callable[[], tuple[int, int]]) -> None:
    reader, writer = ends()
    with TextIOWrapper(open(writer, "wb")) as stream:
        output = Output(stream)
        began = time.monotonic()
        for line in LINES:
            print(line, file=output)
        assert time.monotonic() - began < 30, "nobody waited"
        if ends is stopped_terminal:
            assert read_all(reader) == b""
            termios.tcflow(writer, termios.TCOON)
        found = b""
        for _ in range(200):
            output.flush()
            found += read_all(reader)
        print("at last", file=output)
        found += read_all(reader)
    first, *_, gap, last = found.decode().replace("\r\n", "\n").splitlines()
    assert first == LINES[0]
    assert gap.endswith("lines are left out here: nobody read them in time]")
    assert last == "at last"
    os.close(reader)


def test_a_pipe_that_nobody_reads_holds_no_rank_up(starter: Starter) -> None:
    """Also for what the user's code prints, on any rank; the lines are in rank 0's log."""
    fifo = starter.folder / "output-1-0"  # where the ranks of a start that has one before it print
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDWR | os.O_NONBLOCK)
    while True:  # until it is full
        try:
            os.write(reader, b"x" * 4096)
        except BlockingIOError:
            break
    words = ("model=mlp", "model.hidden=[8]", "train.steps=9", "log.every=1", "run.name=r")
    [rank] = starter.start(1, *words).pids
    assert starter.nursery.wait(rank) == 0
    os.close(reader)
    log = (starter.results("r").folder / "logs" / "rank_0.log").read_text()
    for text in ("start at step 0/9", "step 9/9  epoch 0.401  loss ", "eval at step 9/9  loss ", "finished  steps 9"):
        assert text in log
    assert log[:2] == "20", "with times"

"""What is told on a terminal of 80 columns is broken between words, where the terminal would break it anywhere."""

import os
import pty
import subprocess
import sys
import termios
from collections.abc import Iterator

from phalanx.common.columns import wrap
from phalanx.launch.doctor.finding import Finding, Verdict, table
from tests.ranks import ROOT

SAID = "phalanx: SIGINT: the ranks are to save and leave, within 120 s; Ctrl-C once more ends it at once"
SAY = f"from phalanx.exit.messages import say; say({SAID!r})"


def lines_on_terminal(columns: int) -> list[str]:
    reader, writer = pty.openpty()
    termios.tcsetwinsize(writer, (24, columns))
    subprocess.run([sys.executable, "-c", SAY], cwd=ROOT, stderr=writer, check=True)
    os.close(writer)
    shown = b"".join(_read(reader))
    os.close(reader)
    return shown.decode().splitlines()


def _read(reader: int) -> Iterator[bytes]:
    try:
        while data := os.read(reader, 1 << 16):
            yield data
    except OSError:  # how Linux says that the last writer has closed
        return


def test_a_message_is_broken_between_words_on_a_terminal_alone() -> None:
    first, second = lines_on_terminal(80)
    assert len(first) <= 80
    assert f"{first} {second.strip()}" == SAID
    assert lines_on_terminal(len(SAID)) == lines_on_terminal(0) == [SAID]
    elsewhere = subprocess.run([sys.executable, "-c", SAY], cwd=ROOT, stderr=subprocess.PIPE, text=True, check=True)
    assert elsewhere.stderr == f"{SAID}\n"


def test_what_is_to_be_copied_stays_whole() -> None:
    path = f"/{'a' * 100}/b-c"
    assert wrap(f"see {path}", 80).split() == ["see", path]


def test_the_report_of_a_check_stays_within_its_columns() -> None:
    expected = "half of what the slowest link between the ranks carries; compare with another day or host"
    text = table([Finding("all-reduce", Verdict.WARN, "1 GB/s", expected, f"see {expected}")], 80)
    *found, last = text.splitlines()
    assert max(map(len, found)) <= 80
    assert all(line[:25].strip() in ("", "warn         all-reduce") for line in found), "its names stand alone"
    assert f"expected: {expected} do: see {expected}" in " ".join(text.split())
    assert last == "1 warn"

"""Data sets that tell what was asked of them, draw at random, fail or die. Apart, because workers import them."""

import os
import random
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset


class Numbers(Dataset[int]):
    """Sample i is i. Appends to `journal`, one line a question: its process and the indices."""

    def __init__(self, length: int, journal: Path | None = None) -> None:
        self._length = length
        self._journal = journal

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> int:
        self._note([index])
        return index

    def _note(self, indices: Sequence[int]) -> None:
        if self._journal is not None:
            with self._journal.open("a") as lines:
                lines.write(f"{os.getpid()} {' '.join(map(str, indices))}\n")


class Batched(Numbers):
    """Answers a whole batch at once, with NumPy arrays."""

    def __getitems__(self, indices: NDArray[np.int64]) -> tuple[NDArray[np.int64], dict[str, NDArray[np.int64]]]:
        self._note(indices.tolist())
        return indices, {"twice": 2 * indices}


class Listed(Numbers):
    """Answers a whole batch at once, with a list of samples; too short where `lacking`."""

    def __init__(self, length: int, journal: Path | None = None, lacking: int = 0) -> None:
        super().__init__(length, journal)
        self._lacking = lacking

    def __getitems__(self, indices: NDArray[np.int64]) -> list[int]:
        self._note(indices.tolist())
        return [int(index) for index in indices[self._lacking :]]


class Dice(Dataset[tuple[int, float, float, torch.Tensor]]):
    """Sample i is i and a number from each global generator."""

    def __len__(self) -> int:
        return 50

    def __getitem__(self, index: int) -> tuple[int, float, float, torch.Tensor]:
        return index, random.random(), np.random.rand(), torch.rand(2)


class DiceByBatch(Dice):
    def __getitems__(self, indices: NDArray[np.int64]) -> list[tuple[int, float, float, torch.Tensor]]:
        return [self[int(index)] for index in indices]


class Failing(Numbers):
    def __getitem__(self, index: int) -> int:
        return self._read(index)

    def _read(self, index: int) -> int:
        raise OSError(f"sample {index} cannot be read")


class Dying(Numbers):
    """The process that is asked for the last sample is killed."""

    def __getitem__(self, index: int) -> int:
        if index == len(self) - 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return index


class Unsendable(Numbers):
    """Opens its file too early."""

    def __init__(self, length: int, path: Path) -> None:
        super().__init__(length)
        self._file = path.open("rb")

    def __del__(self) -> None:
        self._file.close()


class Lazy(Dataset[int]):
    """Opens its file, of bytes, when the first sample is asked for."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: Any = None

    def __len__(self) -> int:
        return self._path.stat().st_size

    def __getitem__(self, index: int) -> int:
        if self._file is None:
            self._file = self._path.open("rb", buffering=0)
        self._file.seek(index)
        byte: bytes = self._file.read(1)
        return byte[0]

    def __del__(self) -> None:
        if self._file is not None:
            self._file.close()


class Surroundings(Numbers):
    """Sample i tells of its process: torch's threads, and whether a program started from it can be ended by SIGTERM."""

    def __getitem__(self, index: int) -> Any:
        program = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
        program.terminate()
        return {"threads": torch.get_num_threads(), "ended": program.wait(), "pid": os.getpid()}


def journal_lines(journal: Path) -> list[list[int]]:
    """The questions that a data set noted, without its process."""
    return [[int(word) for word in line.split()[1:]] for line in journal.read_text().splitlines()]

"""Data workers against torch's DataLoader, with the same data set, collate and workers.

    python bench/data.py collate          # samples a second of padded batches: at least 1.0 of the DataLoader's
    python bench/data.py start            # a list of 5,000,000 samples: seconds to the first batch, and memory
    python bench/data.py memory           # an array of 5 GB: what four workers add to it
    python bench/data.py tokens           # windows of a token file, by one core: at least 50 million tokens a second
    python bench/data.py images           # JPEGs against torchvision's ImageFolder: bench/images.py

`collate` takes turns in one process, `start` and `memory` in processes of their own, three each, in turns. `start_s` is the
time from before the list is made to the first batch; as a rank does, this loader's process collects no garbage until the
list is made. The memory is the proportional set size (PSS) of the rank, its workers and what they share, after 200 batches,
and all that is written for workers, also where nobody has read it. Prints medians and ratios.
"""

import argparse
import gc
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[0] = str(ROOT)

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from bench import images
from phalanx.train.data.text.token_file import write_token_file
from phalanx.train.data.text.windows import Tokens
from phalanx.train.loading.collation import UserCollation
from phalanx.train.loading.fetch import PositionDataset
from phalanx.train.loading.loader import Fetcher
from phalanx.train.loading.order import Order
from phalanx.train.loading.shard import Span
from phalanx.train.loading.workers.fork_server import fork_server

BATCH, TURN, TURNS, STARTS, LOOKED_AT = 64, 60, 12, 3, 200  # samples, batches, turns, processes, batches
_SHARED = "memfd:phalanx-data"
WORKERS = {"collate": 2, "start": 4, "memory": 4, "tokens": 0}
WINDOW, TOKENS = 1024, 200_000_000  # tokens of a window, and of the file


class Sentences(Dataset[torch.Tensor]):
    """Lists of words of 10 to 200, made into tensors as they are asked for."""

    def __init__(self, samples: int) -> None:
        draw = np.random.default_rng(0)
        self._words = [draw.integers(0, 30_000, int(length)) for length in draw.integers(10, 201, samples)]

    def __len__(self) -> int:
        return len(self._words)

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.from_numpy(self._words[index])


def pad(samples: Sequence[torch.Tensor]) -> dict[str, torch.Tensor]:
    ids = torch.nn.utils.rnn.pad_sequence(list(samples), batch_first=True)
    return {"ids": ids, "mask": ids > 0}


class Listed(Dataset[tuple[int, int]]):
    """A list of paths and labels, as of a folder of images; a sample is the length of its path and the label."""

    def __init__(self, samples: int) -> None:
        self.samples = [(f"train/n{index % 1000:08d}/image_{index}.jpeg", index % 1000) for index in range(samples)]

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[int, int]:
        path, label = self.samples[index]
        return len(path), label


class Table(Dataset[torch.Tensor]):
    """Rows of one array."""

    def __init__(self, size_bytes: int) -> None:
        self._rows = np.ones((size_bytes // 4096, 1024), np.float32)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.from_numpy(self._rows[index])


def ours(dataset: Any, workers: int, collate: Any = None) -> Iterator[Any]:
    found = None if collate is None else UserCollation(collate, "collate")
    source = PositionDataset(dataset, Order(len(dataset), 0), None, 0, found)
    spans = (Span(k * BATCH, (k + 1) * BATCH) for k in range(10**9))
    return Fetcher(source, workers, 2, False).batches(spans)


def torchs(dataset: Any, workers: int, collate: Any = None) -> Iterator[Any]:
    while True:
        yield from DataLoader(
            dataset, BATCH, shuffle=True, num_workers=workers, collate_fn=collate, prefetch_factor=2, drop_last=True
        )


def throughput() -> None:
    contestants = {"this loader": ours, "DataLoader": torchs}
    dataset = Sentences(200_000)
    batches = {name: make(dataset, WORKERS["collate"], pad) for name, make in contestants.items()}
    rates: dict[str, list[float]] = {name: [] for name in contestants}
    for each in batches.values():
        next(each)
    for _ in range(TURNS):
        for name, each in batches.items():
            began = time.perf_counter()
            for _ in range(TURN):
                next(each)
            rates[name].append(TURN * BATCH / (time.perf_counter() - began))
    medians = {name: statistics.median(of_one) for name, of_one in rates.items()}
    print(f"collate, {WORKERS['collate']} workers, {TURNS} turns of {TURN} batches of {BATCH}, medians")
    for name, median in medians.items():
        print(f"  {name:<12} {median:10.0f} samples/s")
    print(f"  ratio {medians['this loader'] / medians['DataLoader']:.3f}")


def tokens() -> None:
    """A file of 400 MB, in batches of shuffled windows as a rank without workers fetches them, by its processor time."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "tokens.bin")
        draw = np.random.default_rng(0)
        parts = (draw.integers(0, 50_257, TOKENS // 20) for _ in range(20))
        path.with_suffix(".json").write_text(json.dumps(write_token_file(path, parts, 50_257, "", None)))
        batches = ours(Tokens(str(path), WINDOW), 0)
        next(batches)
        rates = []
        for _ in range(TURNS):
            began = time.process_time()
            for _ in range(TURN):
                next(batches)
            rates.append(TURN * BATCH * WINDOW / (time.process_time() - began))
    print(f"tokens, {TURNS} turns of {TURN} batches of {BATCH} windows of {WINDOW}, median")
    print(f"  this loader  {statistics.median(rates) / 1e6:10.1f} million tokens/s a core")


def started(what: str) -> None:
    found: dict[str, list[dict[str, float]]] = {"this loader": [], "DataLoader": []}
    for _ in range(STARTS):
        for name, of_one in found.items():
            ended = subprocess.run(
                [sys.executable, __file__, what, "--child", name], stdout=subprocess.PIPE, check=True
            )
            of_one.append(json.loads(ended.stdout))
    print(f"{what}, {WORKERS[what]} workers, medians of {STARTS} processes each")
    medians = {
        name: {key: statistics.median(each[key] for each in of_one) for key in of_one[0]}
        for name, of_one in found.items()
    }
    for name, told in medians.items():
        print(f"  {name:<12} " + "  ".join(f"{key} {value:.2f}" for key, value in told.items()))
    ratios = {key: value / medians["DataLoader"][key] for key, value in medians["this loader"].items()}
    print("  ratio        " + "  ".join(f"{key} {value:.2f}" for key, value in ratios.items()))


def child(what: str, name: str) -> None:
    """Prints the seconds to the first batch, to the last one that is looked at, and the memory then."""
    begin = time.perf_counter()
    if name == "this loader":
        fork_server()  # as a rank does once it has imported torch
        gc.disable()
    dataset: Any = Listed(5_000_000) if what == "start" else Table(5 * 2**30)
    if name == "this loader":
        gc.freeze()
        gc.enable()
    alone = _pss_gib([os.getpid()])
    began = time.perf_counter()
    batches = (ours if name == "this loader" else torchs)(dataset, WORKERS[what])
    next(batches)
    first, start = time.perf_counter() - began, time.perf_counter() - begin
    for _ in range(LOOKED_AT):
        next(batches)
    all_s = time.perf_counter() - began
    family = _pss_gib([os.getpid(), *images.below(os.getpid())])
    print(
        json.dumps({"start_s": start, "first_batch_s": first, "batches_s": all_s, "set_gib": alone, "all_gib": family}),
        flush=True,
    )
    os._exit(0)


def _pss_gib(pids: Sequence[int]) -> float:
    """With the whole of the shared memory that this process wrote for its workers."""
    written = [Path("/proc/self/fd", name) for name in os.listdir("/proc/self/fd")]
    sizes = [file.stat().st_blocks * 512 for file in written if _SHARED in os.path.realpath(file)]
    return sum(map(_private_kib, pids)) / 2**20 + max(sizes, default=0) / 2**30


def _private_kib(pid: int) -> int:
    """PSS without that of the shared memory."""
    found, counts = 0, True
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        if line.startswith("Pss:"):
            found += counts * int(line.split()[1])
        elif "-" in line.partition(" ")[0]:  # the addresses of the next mapping, and its file
            counts = _SHARED not in line
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=[*WORKERS, "images"])
    parser.add_argument("--child")
    parser.add_argument("--folder")
    asked = parser.parse_args()
    if asked.what == "images":
        if asked.child is None:
            images.contest(__file__)
        else:
            images.child(asked.child, asked.folder, ours, torchs)
    elif asked.child is not None:
        child(asked.what, asked.child)
    elif asked.what == "collate":
        throughput()
    elif asked.what == "tokens":
        tokens()
    else:
        started(asked.what)


if __name__ == "__main__":
    main()

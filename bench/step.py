"""Time of a step: this trainer, logging and all, against a bare hand-written loop, each in processes of its own.

    python bench/step.py convnet        # 2 ranks; at most 0.60 of the bare loop
    python bench/step.py resnet18       # 2 ranks, images of 32x32; at most 0.70
    python bench/step.py mlp            # 2 ranks
    python bench/step.py mlp -n 1
    python bench/step.py rows           # 1 rank, a list of tensors fetched one by one, a plain loop; at most 1.1
    python bench/step.py convnet --starts 6    # of one rank each: none more than 10 % slower than another
    python bench/step.py convnet --weak        # two processes apart against a world of two; at least 0.93 (mlp: 0.88)

They take turns of a few steps, so that whatever else the machine does meets all alike, and none computes in another's
turn. Every process has one thread and 64 samples a step (rows: 256). The trainer has the environment that `phalanx run`
gives it, the bare loop none. Prints the median of each process, and the ratio of the medians over all.
"""

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

ROOT = Path(__file__).resolve().parents[1]
sys.path[0] = str(ROOT)

from phalanx.system import allocator

OFF = ("data.augment=null", "eval.every=null", "checkpoint.every=null", "wandb.mode=disabled", "train.threads=1")


@dataclass(frozen=True)
class Row:
    """What is trained, with `batch` samples a rank, in `turns` turns of `steps` each. An eighth of them warms up."""

    overrides: tuple[str, ...]
    ranks: int = 2
    batch: int = 64
    steps: int = 25
    turns: int = 24
    plain: bool = False  # the bare loop on one rank goes without DistributedDataParallel


def _own(data: str, model: str) -> tuple[str, ...]:
    train = (f"data.train._target_=bench.sets.{data}", "~data.train.split", "data.eval=null")
    return (*train, "checkpoint.best_metric=null", *model.split())


ROWS = {
    "convnet": Row(("model=convnet",)),
    "mlp": Row(("model=mlp",), steps=100),
    "resnet18": Row(_own("Pictures", "model=resnet18 +data.train.samples=2048"), steps=4, turns=16),
    "rows": Row(
        _own("Rows", "~model +model._target_=bench.sets.Linear +data.train.samples=20000 task.classes=2"),
        ranks=1,
        batch=256,
        steps=100,
        plain=True,
    ),
}


@dataclass
class Process:
    """A rank under way: it takes a turn when it reads a line, and answers with the seconds of each step."""

    process: "subprocess.Popen[str]"
    times: list[float] = field(default_factory=list)

    @property
    def median_ms(self) -> float:
        return 1e3 * statistics.median(self.times[len(self.times) // 8 :])


@dataclass
class Contestant:
    """Processes that take their turns at the same time."""

    name: str
    processes: list[Process]

    def turn(self) -> None:
        for each in self.processes:
            _pipe(each.process.stdin).write("go\n")
            _pipe(each.process.stdin).flush()
        for each in self.processes:
            answer = _pipe(each.process.stdout).readline()
            if not answer:
                sys.exit(f"a process of {self.name} has ended")
            each.times += json.loads(answer)

    @property
    def median_ms(self) -> float:
        return statistics.median(each.median_ms for each in self.processes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("row", choices=ROWS)
    parser.add_argument("-n", "--ranks", type=int)
    parser.add_argument("--starts", type=int, default=0, help="several starts of one rank against one another")
    parser.add_argument("--weak", action="store_true", help="a world of two against two processes apart")
    parser.add_argument("overrides", nargs="*")
    asked = parser.parse_intermixed_args()
    row = ROWS[asked.row]
    ranks = asked.ranks or row.ranks
    with tempfile.TemporaryDirectory() as folder:

        def started(kind: str, worlds: int, size: int) -> list[Process]:
            return [each for _ in range(worlds) for each in _world(kind, asked.row, size, asked.overrides, folder)]

        if asked.starts:
            contestants = [Contestant(f"start {n + 1}", started("trainer", 1, 1)) for n in range(asked.starts)]
        elif asked.weak:
            apart = Contestant("two apart", started("trainer", 2, 1))
            contestants = [apart, Contestant("a world of two", started("trainer", 1, 2))]
        else:
            bare = Contestant("bare loop", started("bare", 1, ranks))
            contestants = [bare, Contestant("this trainer", started("trainer", 1, ranks))]
        for _ in range(row.turns):
            for contestant in contestants:
                contestant.turn()
        _report(asked.row, row, contestants, weak=asked.weak)
        for contestant in contestants:
            for each in contestant.processes:
                each.process.communicate()


def _report(name: str, row: Row, contestants: Sequence[Contestant], *, weak: bool) -> None:
    counted = row.turns * row.steps - row.turns * row.steps // 8
    print(f"{name}, {row.batch} samples a rank, {counted} steps each, medians")
    for contestant in contestants:
        each = ", ".join(f"{process.median_ms:.3f}" for process in contestant.processes)
        print(f"  {contestant.name:<15} {contestant.median_ms:8.3f} ms   each process {each}")
    medians = [contestant.median_ms for contestant in contestants]
    if len(contestants) > 2:
        print(f"  the slowest over the fastest {max(medians) / min(medians):.3f}")
    elif weak:
        print(f"  weak scaling {medians[0] / medians[1]:.3f}")
    else:
        print(f"  ratio {medians[1] / medians[0]:.3f}")


def _world(kind: str, name: str, size: int, overrides: Sequence[str], folder: str) -> list[Process]:
    """Start the ranks of a world, each with its own pipes."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    shared = {
        **os.environ,
        **{"OMP_NUM_THREADS": "1", "WORLD_SIZE": str(size), "LOCAL_WORLD_SIZE": str(size)},
        **{"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "CUDA_VISIBLE_DEVICES": ""},
        **(allocator.huge_pages(os.environ) if kind == "trainer" else {}),
    }
    command = [sys.executable, __file__, kind, name, tempfile.mkdtemp(dir=folder), *overrides]
    return [
        Process(
            subprocess.Popen(
                command,
                env={**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        )
        for rank in range(size)
    ]


def _pipe(found: "IO[str] | None") -> "IO[str]":
    assert found is not None
    return found


def _child(kind: str, name: str, folder: str, overrides: Sequence[str]) -> None:
    """A rank, of this trainer or of the bare loop."""
    if kind == "trainer":
        allocator.keep_freed_memory(os.environ)
    row, ranks = ROWS[name], int(os.environ["WORLD_SIZE"])
    words = [
        *row.overrides,
        *OFF,
        f"train.global_batch={row.batch * ranks}",
        f"train.steps={row.steps * row.turns + 1}",
    ]  # one after the last turn
    words += ["train.epochs=null", f"run.root={folder}", "run.name=bench", *overrides]
    from bench import contest

    sys.stdout, console = open(os.devnull, "w"), sys.stdout  # noqa: SIM115 - progress lines are written, not shown
    turns = _turns(row, console)
    if kind == "trainer":
        contest.train(words, turns, row.steps)
    else:
        contest.loop(words, turns, row.steps, plain=row.plain and ranks == 1)


def _turns(row: Row, console: "IO[str]") -> Iterator[list[float]]:
    """A list for the seconds of each step, turn after turn; the last one is told when the next is asked for."""
    for _ in range(row.turns):
        if not sys.stdin.readline():
            return
        times: list[float] = []
        yield times
        print(json.dumps(times), file=console, flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] in (["trainer"], ["bare"]):
        _child(sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4:])
    else:
        main()

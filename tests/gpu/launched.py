"""Runs on GPUs, each rank a fresh process: CUDA does not survive a fork."""

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.ranks import ROOT, SMALL, Results, free_port, quoted, rank_variables

_LIMIT_S = 240.0  # a start with NCCL, autotuning and compilation

DETERMINISTIC = ("train.deterministic=true",)


@dataclass(frozen=True)
class Ended:
    codes: list[int]
    output: str


@dataclass(frozen=True)
class Gpus:
    folder: Path

    def run(self, ranks: int, *overrides: str, launched: bool = True) -> Ended:
        """Start ranks as torchrun does, one a GPU, and wait. Not `launched` is a plain `python train/main.py`."""
        port = free_port()
        started = [
            self._start(
                rank_variables(rank, ranks, port) if launched else {}, overrides, self.folder / f"output-{port}-{rank}"
            )
            for rank in range(ranks)
        ]
        try:
            codes = [process.wait(_LIMIT_S) for process in started]
        finally:
            for process in started:
                process.kill()
        outputs = [(self.folder / f"output-{port}-{rank}").read_text(errors="replace") for rank in range(ranks)]
        return Ended(codes, "".join(outputs))

    def train(self, ranks: int, *overrides: str, name: str, launched: bool = True) -> Results:
        """A run that must finish on the GPUs; returns what it left in its folder."""
        ended = self.run(ranks, *overrides, f"run.name={name}", "world.device=cuda", launched=launched)
        assert ended.codes == [0] * ranks, ended.output
        results = self.results(name)
        return results

    def on_cpu(self, *overrides: str, name: str) -> Results:
        ended = self.run(1, *overrides, f"run.name={name}", "world.device=cpu", launched=False)
        assert ended.codes == [0], ended.output
        return self.results(name)

    def results(self, name: str) -> Results:
        return Results(self.folder / "runs" / name)

    def _start(self, where: Mapping[str, str], overrides: tuple[str, ...], output: Path) -> "subprocess.Popen[bytes]":
        ours = {name: value for name, value in os.environ.items() if not name.endswith("RANK")}
        root = f"run.root={quoted(str(self.folder / 'runs'))}"
        with output.open("wb") as file:
            return subprocess.Popen(
                [sys.executable, str(ROOT / "train" / "main.py"), root, *SMALL, *overrides],
                cwd=self.folder,
                env={**ours, **where},
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
            )


def timeless(results: Results) -> list[dict[str, Any]]:
    """Without what a clock or the allocator decides."""
    return [{key: value for key, value in line.items() if key != "memory_gib"} for line in results.timeless()]

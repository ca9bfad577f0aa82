"""Time to the end of the first step: torchrun of this trainer against a script that imports torch, joins gloo and leaves.

    python bench/start.py [--ranks 2] [--runs 7]

Both are started in turn. The goal is a difference of at most 1.5 s.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
_BARE = """
import time, torch.distributed as dist
dist.init_process_group("gloo")
if dist.get_rank() == 0:
    print("joined", time.time(), flush=True)
dist.destroy_process_group()
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--runs", type=int, default=7)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        bare = Path(folder) / "bare.py"
        bare.write_text(_BARE)
        pairs = [(_bare(bare, asked.ranks), _first_step(folder, i, asked.ranks)) for i in range(-1, asked.runs)][1:]
    joined, stepped = (statistics.median(times) for times in zip(*pairs, strict=True))
    more = statistics.median(b - a for a, b in pairs)
    print(f"{asked.ranks} ranks, {asked.runs} pairs of starts, medians")
    print(f"  torch imported, gloo joined   {joined:6.2f} s")
    print(f"  first step done               {stepped:6.2f} s")
    print(f"  difference, pair by pair      {more:6.2f} s")


def _bare(script: Path, ranks: int) -> float:
    begin = time.time()
    output = _torchrun(ranks, [str(script)])
    return float(next(line.split()[1] for line in output.splitlines() if line.startswith("joined"))) - begin


def _first_step(folder: str, number: int, ranks: int) -> float:
    """Seconds from the launcher's start to the first line of metrics, which log.every=1 writes after the first step."""
    begin = time.time()
    run = [f"run.root={folder}", f"run.name=start{number}", "train.steps=2", "log.every=1", "wandb.mode=disabled"]
    _torchrun(ranks, [str(ROOT / "train" / "main.py"), *run])
    first = (Path(folder) / f"start{number}" / "metrics.jsonl").read_text().splitlines()[0]
    return float(json.loads(first)["time"]) - begin


def _torchrun(ranks: int, command: list[str]) -> str:
    launcher = [sys.executable, "-m", "torch.distributed.run", f"--nproc_per_node={ranks}"]
    environ = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [*launcher, *command], env=environ, check=True, text=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ).stdout


if __name__ == "__main__":
    main()

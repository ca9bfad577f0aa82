"""Sweeps of the digits ConvNet in two slots: warm ones against one process a trial, and halving against all to the end.

    python bench/sweep.py [trials [key=value ...]]

The same points are trained in several ways: to their ends in warm slots; halved at steps 15, 45 and 135; (the first eighth
of them) by commands of their own, one after the other as Hydra's basic launcher would, and two at a time; and where Ray is
installed, in Ray Tune, to their ends and halved as well. Prints trials an hour, the share of the slots' time that was spent
in steps, the best score and the steps taken. Takes ten minutes with 64 trials.
"""

import json
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
SPACE = ["optim.lr=tag(log,interval(1e-4,1e-1))", "model.dropout=interval(0,0.5)"]
FIXED = ["experiment=digits", "wandb.mode=disabled", "train.threads=1"]
HALVED = ["eval.every=15", "sweep/pruner=asha"]
SLOTS = 2
STEPPING = ("data_s", "step_s", "log_s")  # of a summary
PATHS = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
ENVIRON = {**os.environ, "PYTHONPATH": PATHS, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


def main() -> None:
    trials = int(sys.argv[1]) if len(sys.argv) > 1 else 64
    words = [*FIXED, *sys.argv[2:]]
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        full = _sweep(root, "full", words, trials)
        halved = _sweep(root, "halved", [*words, *HALVED], trials)
        points = [row["words"] for row in full["rows"][: max(2, trials // 8)]]
        rivals = _ray(root, [row["words"] for row in full["rows"]])
        single_s = _alone(root / "single", words, points, at_once=1)
        double_s = _alone(root / "double", words, points, at_once=SLOTS)
    print(f"{trials} trials, {SLOTS} slots of one rank, {' '.join(words)}")
    print(f"  warm slots          {_hourly(trials, full['took_s'])}")
    print(f"    stepping {full['stepping']:.1%} of the slots' time, with evaluations and saves {full['working']:.1%}")
    print(f"    from the last step of a trial to the first of the next {full['turnover_s']:.2f} s (median)")
    print(f"  one after the other {_hourly(len(points), single_s)}")
    print(f"  two at a time       {_hourly(len(points), double_s)}")
    print(f"  halved              {_hourly(trials, halved['took_s'])}")
    for name, found in rivals.items():
        print(f"  {name:<19} {_hourly(trials, found['took_s'])}")
    print("  best accuracy")
    for name, found in {"warm slots": full, "halved": halved}.items():
        print(f"    {name:<17} {found['best']['value']:.4f} in {found['steps']:,} steps")
    for name, found in rivals.items():
        print(f"    {name:<17} {found['best']:.4f} in {found['steps']:,} steps")
    print(f"  steps of halved / all {halved['steps'] / full['steps']:.3f}")


def _sweep(root: Path, name: str, words: Sequence[str], trials: int) -> dict[str, Any]:
    """A sweep's sweep.json; with the seconds from its first trial's beginning to the last one's end, what share of them
    its slots spent in steps, and how many steps that was."""
    own = [f"sweep.trials={trials}", f"sweep.slots={SLOTS}", f"run.root={root}", f"run.name={name}"]
    command = [sys.executable, "-m", "phalanx.launch.cli", "sweep", "sweep=random", *words, *own, *SPACE]
    done = subprocess.run(command, env=ENVIRON, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{shlex.join(command)}\n{done.stdout}{done.stderr}")
    found: dict[str, Any] = json.loads((root / name / "sweep.json").read_text())
    events = [_lines(run / "events.jsonl") for run in sorted((root / name).glob("[0-9]*[0-9]"))]
    begin = min(of_run[0]["time"] - of_run[0]["took_s"] for of_run in events)
    found["took_s"] = max(of_run[-1]["time"] for of_run in events) - begin
    found["steps"] = sum(max(event["step"] for event in of_run) for of_run in events)
    found["turnover_s"] = statistics.median(_turnovers(root / name))
    spent = [json.loads(path.read_text()) for path in (root / name).glob("*/summary.json")]
    for share, parts in (("stepping", STEPPING), ("working", (*STEPPING, "evaluate_s", "checkpoint_s"))):
        found[share] = sum(summary[part] for summary in spent for part in parts) / (SLOTS * found["took_s"])
    return found


def _turnovers(sweep: Path) -> list[float]:
    """From the last step of each trial to the first one of the next in its slot, evaluation and save in between."""
    starts, ends = [], []
    for run in sweep.glob("[0-9]*[0-9]"):
        starts.append(_lines(run / "events.jsonl")[0]["time"])
        ends.append(max(line["time"] for line in _lines(run / "metrics.jsonl") if line["split"] == "train"))
    return [start - end for end, start in zip(sorted(ends), sorted(starts)[SLOTS:], strict=False)]


def _ray(root: Path, words: Sequence[Sequence[str]]) -> dict[str, dict[str, Any]]:
    """The same points in Ray Tune, to the end and halved; nothing where it is not installed."""
    if find_spec("ray") is None:
        return {}
    values = [[float(word.partition("=")[2]) for word in of_point] for of_point in words]
    points, out = root / "points.json", root / "ray.json"
    points.write_text(json.dumps([{"lr": lr, "dropout": dropout} for lr, dropout in values]))
    found = {}
    for name, every in (("Ray Tune", []), ("Ray Tune, ASHA", ["15"])):
        command = [sys.executable, str(ROOT / "bench/ray_tune.py"), str(points), str(out), str(SLOTS), *every]
        subprocess.run(command, env=ENVIRON, capture_output=True, check=True)
        found[name] = json.loads(out.read_text())
    return found


def _alone(root: Path, words: Sequence[str], points: Sequence[Sequence[str]], at_once: int) -> float:
    """Seconds that commands of their own take for these points."""

    def train(point: int) -> None:
        own = [f"run.root={root}", f"run.name=p{point}"]
        command = [sys.executable, str(ROOT / "train/main.py"), *words, *points[point], *own]
        subprocess.run(command, env=ENVIRON, capture_output=True, check=True)

    began = time.monotonic()
    with ThreadPoolExecutor(at_once) as pool:
        list(pool.map(train, range(len(points))))
    return time.monotonic() - began


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def _hourly(trials: int, seconds: float) -> str:
    return f"{trials / seconds * 3600:7.0f} trials/h"


if __name__ == "__main__":
    main()

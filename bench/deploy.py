"""How long an exported model takes through our loader, and through a session of ONNX Runtime that is written by hand.

    python bench/deploy.py latency [RUN/export/onnx] [--batch 1] [--calls 2000]

Without a folder the ConvNet of the digits is trained for an epoch and exported. Both are called in turns, on one thread.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np

from phalanx.train.deploy.runtimes.load_export import load_export

_WARM_UP = 50  # calls
_LENGTH = 16  # of what has one


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["latency"])
    parser.add_argument("export", type=Path, nargs="?")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--calls", type=int, default=2000)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as aside:
        latency(asked.export or exported_digits(Path(aside)), asked.batch, asked.calls)


def exported_digits(root: Path) -> Path:
    command = [sys.executable, str(ROOT / "phalanx")]
    words = ["train.epochs=1", "run.name=digits", f"run.root={root}", "wandb.mode=disabled"]
    subprocess.run([*command, "run", "-n", "1", *words], check=True, stdout=subprocess.DEVNULL)
    subprocess.run([*command, "export", str(root / "digits"), "--to", "onnx"], check=True, stdout=subprocess.DEVNULL)
    return root / "digits" / "export" / "onnx"


def latency(folder: Path, batch: int, calls: int) -> None:
    import onnxruntime

    loaded = load_export(folder, threads=1)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(folder / "model.onnx", options, ["CPUExecutionProvider"])
    draw = np.random.default_rng(0)
    inputs = {}
    for info in loaded.manifest.inputs:
        shape = [batch if dim == "batch" else _LENGTH if isinstance(dim, str) else dim for dim in info.shape]
        inputs[info.name] = draw.standard_normal(shape).astype(info.dtype)
    ours, theirs = [], []
    for call in range(calls + _WARM_UP):
        pair = (timed(lambda: loaded.runtime(inputs)), timed(lambda: session.run(None, inputs)))
        if call >= _WARM_UP:
            ours.append(pair[0])
            theirs.append(pair[1])
    for name, found in (("our loader", ours), ("by hand", theirs)):
        median, late = statistics.median(found) * 1e6, statistics.quantiles(found, n=100)[98] * 1e6
        print(f"{name:10}  p50 {median:8.1f} us  p99 {late:8.1f} us")
    print(f"ratio of p50: {statistics.median(ours) / statistics.median(theirs):.3f}")


def timed(act: Callable[[], object]) -> float:
    begin = time.perf_counter()
    act()
    return time.perf_counter() - begin


if __name__ == "__main__":
    main()

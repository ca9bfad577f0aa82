"""What `phalanx serve` adds to a prediction: its answers over HTTP beside the same predictions in this process.

    python bench/serve.py [RUN/export/onnx] [--requests 2000] [--clients 1 4]

Without a folder the ConvNet of the digits is trained for an epoch and exported. Both read the same picture, on one thread,
in turns of 100; a client of the server keeps its connection. Prints p50 and p99 of both, and what the server adds: at most
2 ms at p99. Several clients ask at once, and as many threads predict here; the server's answers come one after the other.
"""

import argparse
import http.client
import io
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np
from PIL import Image

from bench.deploy import exported_digits, timed
from phalanx.train.deploy.prediction.export_predictor import predictor_of
from phalanx.train.deploy.prediction.predictor import predicted
from phalanx.train.deploy.runtimes.load_export import load_export

_TURN, _WARM_UP = 100, 2  # requests, and turns that are not counted


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("export", type=Path, nargs="?")
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 4])
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as aside:
        folder = asked.export or exported_digits(Path(aside))
        command = [sys.executable, str(ROOT / "phalanx"), "serve", str(folder), "--port", "0", "train.threads=1"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
            assert server.stdout is not None
            found = re.search(r"127\.0\.0\.1:(\d+)", server.stdout.readline())
            assert found is not None
            for clients in asked.clients:
                contest(folder, int(found[1]), clients, asked.requests)
            server.terminate()


def contest(folder: Path, port: int, clients: int, requests: int) -> None:
    picture = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (28, 28), np.uint8)).save(picture, "PNG")
    predictor = predictor_of(load_export(folder, threads=1), folder, 1)
    connections = [http.client.HTTPConnection("127.0.0.1", port) for _ in range(clients)]

    def here(_: http.client.HTTPConnection) -> None:
        predicted(predictor, [predictor.sample(picture.getvalue())])

    def over_http(connection: http.client.HTTPConnection) -> None:
        connection.request("POST", "/predict", picture.getvalue(), {"Content-Type": "image/png"})
        assert connection.getresponse().read().startswith(b'{"prediction"')

    acts = {"over HTTP": over_http, "here": here}
    took: dict[str, list[float]] = {name: [] for name in acts}
    with ThreadPoolExecutor(clients) as threads:
        for turn in range(_WARM_UP + requests // _TURN):
            for name, act in acts.items():
                seconds = [s for each in threads.map(turns_of(act, clients), connections) for s in each]
                took[name] += seconds if turn >= _WARM_UP else []
    late = {name: statistics.quantiles(seconds, n=100)[98] * 1e3 for name, seconds in took.items()}
    for name, seconds in took.items():
        print(f"{clients} clients, {name:9}  p50 {statistics.median(seconds) * 1e3:6.2f} ms  p99 {late[name]:6.2f} ms")
    print(f"{clients} clients: at p99 the server adds {late['over HTTP'] - late['here']:.2f} ms")


def turns_of(
    act: Callable[[http.client.HTTPConnection], None], clients: int
) -> Callable[[http.client.HTTPConnection], list[float]]:
    """A client's share of a turn: the seconds of each of its requests."""
    return lambda connection: [timed(lambda: act(connection)) for _ in range(_TURN // clients)]


if __name__ == "__main__":
    main()

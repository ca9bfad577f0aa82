"""`phalanx serve` answers many at once as `phalanx predict` does, tells what is wrong, and ends when it is told to."""

import base64
import http.client
import io
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.launch.commands.deployment.conftest import DIGITS, command
from tests.ranks import QUIET, ROOT, Nursery, Results, until

pytestmark = pytest.mark.xdist_group("predict")  # one run

JSON, PNG = "application/json", "image/png"
CLIENTS = 8


@dataclass(frozen=True)
class Served:
    process: "subprocess.Popen[str]"
    port: int
    pictures: list[bytes]

    def connection(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)

    def ask(self, body: bytes, kind: str, method: str = "POST", path: str = "/predict") -> tuple[int, Any]:
        connection = self.connection()
        connection.request(method, path, body, {"Content-Type": kind})
        answer = connection.getresponse()
        found = answer.status, json.loads(answer.read())
        connection.close()
        return found


@pytest.fixture
def served(predicting: Results) -> Iterator[Served]:
    export = predicting.folder / "export/safetensors"
    command = [sys.executable, str(ROOT / "phalanx"), "serve", str(export), "--port", "0", "--limit-mib", "1"]
    with subprocess.Popen(
        command, env={**os.environ, **QUIET}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        said = process.stdout.readline()
        assert "serving r, step 20, safetensors on http://127.0.0.1:" in said, said
        port = int(said.partition("127.0.0.1:")[2].partition(":")[0])
        pictures = [path.read_bytes() for path in sorted((predicting.folder.parent.parent / "pictures").iterdir())]
        yield Served(process, port, pictures)
        process.kill()


def encoded(picture: bytes) -> str:
    return base64.b64encode(picture).decode()


def expected(nursery: Nursery, predicting: Results) -> list[dict[str, Any]]:
    process = command(nursery, predicting.folder, "predict", "runs/r/export/safetensors", "pictures")
    return [
        {key: value for key, value in json.loads(line).items() if key != "input"}
        for line in process.stdout.splitlines()
    ]


BAD: list[tuple[bytes, str, str]] = [
    (b"{", JSON, "the body is no JSON"),
    (b"[" * 100_000, JSON, "the body is no JSON"),
    (b"\xff{}", JSON, "the body is not UTF-8"),
    (b"[]", JSON, "the body is to be"),
    (b'{"input": 1, "inputs": [1]}', JSON, "the body is to be"),
    (b'{"inputs": []}', JSON, "a list of 1 to 256"),
    (b'{"inputs": {}}', JSON, "a list of 1 to 256"),
    (b'{"input": NaN}', JSON, "the content of its file in base64"),
    (b'{"input": "@@"}', JSON, "the content of its file in base64"),
    (b'{"inputs": ["AAAA"]}', JSON, "inputs[0]: this is no picture"),
    (b"", PNG, "this is no picture"),
    (b"GIF89a", PNG, "this is no picture"),
]


def test_many_clients_get_what_predict_gives_and_bad_requests_between_them_an_answer_each(
    nursery: Nursery, predicting: Results, served: Served
) -> None:
    known = expected(nursery, predicting)

    def client(number: int) -> None:
        connection = served.connection()  # kept over all its requests
        for turn in range(DIGITS):
            i = (number + turn) % DIGITS
            if turn % 3 == 2:
                body, kind, told = BAD[(number + turn) % len(BAD)]
                connection.request("POST", "/predict", body, {"Content-Type": kind})
                answer = connection.getresponse()
                assert (answer.status, told in json.loads(answer.read())["error"]) == (400, True), body
            elif turn % 2:
                body = json.dumps({"inputs": [encoded(served.pictures[i]), encoded(served.pictures[0])]}).encode()
                connection.request("POST", "/predict", body, {"Content-Type": JSON})
                found = json.loads(connection.getresponse().read())["predictions"]
                assert [each["prediction"] for each in found] == [known[i]["prediction"], known[0]["prediction"]]
            else:
                connection.request("POST", "/predict", served.pictures[i], {"Content-Type": PNG})
                found = json.loads(connection.getresponse().read())
                assert found["prediction"] == known[i]["prediction"]
                assert found["score"] == pytest.approx(known[i]["score"], rel=1e-5)
        connection.close()

    with ThreadPoolExecutor(CLIENTS) as clients:
        list(clients.map(client, range(CLIENTS)))
    status, health = served.ask(b"", JSON, "GET", "/health")
    assert (status, health["status"], health["format"]) == (200, "ready", "safetensors")
    assert (health["answered"], health["refused"]) == (CLIENTS * 8, CLIENTS * 4)
    assert 0 < health["latency_ms"]["p50"] <= health["latency_ms"]["p99"]


@pytest.mark.parametrize(("body", "kind", "told"), BAD)
def test_each_bad_request_is_told_what_is_wrong_without_a_word_of_our_code(body: bytes, kind: str, told: str) -> None:
    """In this process: the same function that the server calls."""
    from phalanx.exit.codes import ConfigError
    from phalanx.train.deploy.prediction.answers import Answers
    from phalanx.train.deploy.prediction.predictor import FormPredictor
    from phalanx.train.deploy.prediction.raw_inputs import RawInputs
    from phalanx.train.deploy.serving.requests import asked

    form = {"kind": "image", "channels": 1, "size": [28, 28], "mean": [0.3], "std": [0.3]}
    inputs = RawInputs({"x": form}, {"x": "float32"}, {}, Path())
    predictor = FormPredictor(inputs, lambda found: found, Answers({"kind": "tensor"}, None, 1))  # type: ignore[arg-type]
    with pytest.raises(ConfigError) as error:
        asked(body, kind, predictor)
    assert told in str(error.value)


def test_many_inputs_that_are_large_when_decoded_are_refused_before_they_fill_the_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from phalanx.exit.codes import ConfigError
    from phalanx.train.deploy.prediction.answers import Answers
    from phalanx.train.deploy.prediction.predictor import FormPredictor
    from phalanx.train.deploy.prediction.raw_inputs import RawInputs
    from phalanx.train.deploy.serving import requests

    monkeypatch.setattr(requests, "_MOST_BYTES", 2 << 20)
    file = io.BytesIO()
    Image.new("L", (400, 400)).save(file, "PNG")
    form = {"kind": "image", "channels": 1, "size": None, "mean": [0.3], "std": [0.3]}
    inputs = RawInputs({"x": form}, {"x": "float32"}, {}, Path())
    predictor = FormPredictor(inputs, lambda found: found, Answers({"kind": "tensor"}, None, 1))  # type: ignore[arg-type]
    body = json.dumps({"inputs": [encoded(file.getvalue())] * 256}).encode()
    with pytest.raises(ConfigError, match="more than 2 MiB when decoded"):
        requests.asked(body, JSON, predictor)


def test_other_paths_methods_and_long_bodies_have_their_own_status(served: Served) -> None:
    assert served.ask(b"", JSON, "GET")[0] == 405
    assert served.ask(b"", JSON, path="/")[0] == 404
    status, told = served.ask(b"\0" * (2 << 20), PNG)
    assert (status, told["error"]) == (413, "Request Entity Too Large")
    connection = served.connection()
    connection.request("POST", "/predict", b"no gzip", {"Content-Type": PNG, "Content-Encoding": "gzip"})
    answer = connection.getresponse()
    assert (answer.status, b"as its headers say" in answer.read()) == (400, True)
    connection.close()
    assert served.ask(served.pictures[0], PNG)[0] == 200


def test_what_was_asked_is_answered_before_it_ends_and_nothing_is_taken_any_more(served: Served) -> None:
    file = io.BytesIO()
    Image.new("L", (4000, 4000)).save(file, "PNG")
    slow = json.dumps({"inputs": [encoded(file.getvalue())] * 20}).encode()
    half = served.connection()
    half.putrequest("POST", "/predict")
    half.putheader("Content-Length", "100")
    half.endheaders(b"{")
    with ThreadPoolExecutor(1) as client:
        answer = client.submit(served.ask, slow, JSON)
        until(lambda: served.ask(b"", JSON, "GET", "/health")[1]["answering"] == 1)
        served.process.send_signal(signal.SIGTERM)
        until(lambda: not listens(served.port))
        assert not answer.done()
        status, found = answer.result()
        assert (status, len(found["predictions"])) == (200, 20)
    assert served.process.wait(10) == 0
    half.close()
    assert served.process.stderr is not None
    assert "Traceback" not in served.process.stderr.read()


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_a_port_that_is_taken_and_a_folder_that_is_no_export_are_told(
    nursery: Nursery, predicting: Results, served: Served
) -> None:
    for words, told in (
        (("runs/r/export/safetensors", "--port", str(served.port)), "address already in use. Type another --port"),
        (("runs/r",), "is no export: it has no export.json"),
        (("runs/r/export/safetensors", "optim.lr=1"), "optim.lr=1 says nothing to an export"),
    ):
        process = command(nursery, predicting.folder, "serve", *words)
        assert (process.returncode, process.stdout) == (2, "")
        assert told in " ".join(process.stderr.split())

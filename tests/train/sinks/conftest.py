"""A W&B server on the loopback that understands what the client needs, and a wall that never answers."""

import json
import re
import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

KEY = "0123456789abcdef" * 3


class WandbServer(ThreadingHTTPServer):
    """Keeps every request as (name, variables). The name is a GraphQL operation's or "file_stream"."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.requests: list[tuple[str, dict[str, Any]]] = []
        self.files: dict[str, bytes] = {}
        self._arrived = threading.Condition()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def take(self, name: str, variables: dict[str, Any]) -> None:
        with self._arrived:
            self.requests.append((name, variables))
            self._arrived.notify_all()

    def wait_for(self, name: str, wanted: Callable[[dict[str, Any]], bool] = bool) -> dict[str, Any]:
        with self._arrived:
            assert self._arrived.wait_for(lambda: any(map(wanted, self.all(name))), timeout=20), self.requests
            return next(filter(wanted, self.all(name)))

    def all(self, name: str) -> list[dict[str, Any]]:
        return [variables for kind, variables in self.requests if kind == name]

    def history(self) -> list[dict[str, Any]]:
        """The rows that were logged, without W&B's own columns."""
        chunks = (body.get("files", {}).get("wandb-history.jsonl", {}) for body in self.all("file_stream"))
        rows = (json.loads(row) for chunk in chunks for row in chunk.get("content", []))
        return [{key: value for key, value in row.items() if not key.startswith("_")} for row in rows]

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that hang up are no error here."""


class _Answer(BaseHTTPRequestHandler):
    server: WandbServer
    protocol_version = "HTTP/1.1"

    def do_PUT(self) -> None:
        self.server.files[self.path.removeprefix("/")] = self._read()
        self._answer({})

    def do_POST(self) -> None:
        body = self._read()
        if self.path.endswith("/file_stream"):
            self.server.take("file_stream", json.loads(body))
            self._answer({"limits": {}})
        elif self.path.endswith("/graphql"):
            query = json.loads(body)
            operation = re.search(r"(?:query|mutation)\s+(\w+)", query["query"])
            name, variables = operation.group(1) if operation else "", query.get("variables") or {}
            self.server.take(name, variables)
            self._answer({"data": self._data(name, variables)})
        else:
            self._answer({})

    def _data(self, name: str, variables: dict[str, Any]) -> dict[str, Any]:
        if name == "UpsertBucket":
            project = {"id": "p", "name": variables["project"], "entity": {"id": "e", "name": "crew"}}
            bucket = {"id": "b", "name": variables["name"], "displayName": "d", "config": "{}", "project": project}
            return {"upsertBucket": {"bucket": bucket, "inserted": True}}
        if name == "CreateRunFiles":
            files = [{"name": file, "uploadUrl": f"{self.server.url}/{file}"} for file in variables["files"]]
            return {"createRunFiles": {"runID": "b", "uploadHeaders": [], "files": files}}
        return {"model": None}

    def _read(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _answer(self, value: object) -> None:
        data = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def wandb_env(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """W&B set to nothing but a home without settings; the value marks every process started from here on."""
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_BASE_URL", "WANDB_SERVICE", "NETRC"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PHALANX_TEST", str(tmp_path))
    return str(tmp_path)


@pytest.fixture
def wandb_server(wandb_env: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[WandbServer]:
    """A server that takes runs, which the environment names together with a key."""
    with WandbServer() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        monkeypatch.setenv("WANDB_API_KEY", KEY)
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def wandb_wall(wandb_env: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """A server that lets clients connect and never says a word."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as wall:
        wall.settimeout(60)  # no test waits longer for somebody to come
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{wall.getsockname()[1]}")
        monkeypatch.setenv("WANDB_API_KEY", KEY)
        yield wall

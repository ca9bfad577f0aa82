"""A file at an address arrives whole and once, whatever its server, the network or a kill does."""

import hashlib
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from phalanx.exit.codes import ConfigError
from phalanx.train.prepared.downloads import Download, Url
from tests.ranks import ROOT, until

CONTENT = bytes(range(256)) * 1000
HALF = len(CONTENT) // 2
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Server(ThreadingHTTPServer):
    """Serves CONTENT in the way that the first part of a path names; `asked` has the Range of each request, or None."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.asked: list[str | None] = []
        self.end = threading.Event()

    def address(self, way: str) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/{way}/data.bin"


class Answer(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        way, asked = self.path.split("/")[1], self.headers["Range"]
        self.server.asked.append(asked)
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and way != "no_range" else 0
        if way == "moved":
            return self._head(302, {"Location": "/plain/data.bin"})
        if way == "lost":
            return self._head(404, {})
        if way == "dead":
            return None  # closes the connection without an answer
        if asked and start >= len(CONTENT):
            return self._head(416, {"Content-Range": f"bytes */{len(CONTENT)}"})
        body = CONTENT[::-1] if way == "other" else CONTENT[start:]
        if start and way == "elsewhere":
            body, start = CONTENT[start + 1 :], start + 1
        told = {"Content-Length": str(len(body))}
        self._head(206 if start else 200, told | ({"Content-Range": f"bytes {start}-/"} if start else {}))
        stops = way in ("halves", "stalls") or (way == "no_range" and not self.server.end.is_set())
        self.wfile.write(body[: max(1, len(body) // 2)] if stops else body)
        if way == "stalls" and not start:
            self.wfile.flush()
            self.server.end.wait()

    def _head(self, code: int, headers: dict[str, str]) -> None:
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as made:
        thread = threading.Thread(target=made.serve_forever, args=(0.01,))
        thread.start()
        yield made
        made.end.set()
        made.shutdown()
        thread.join()


def download(server: Server, way: str) -> Download:
    return Download([Url(server.address(way))], SHA256, "CC0", "a test")


@pytest.mark.parametrize("way", ["plain", "moved"])
def test_a_file_is_fetched_once_also_from_where_it_has_moved(server: Server, tmp_path: Path, way: str) -> None:
    for _ in range(2):
        file = download(server, way).get(tmp_path)
        assert (file.name, file.read_bytes()) == ("data.bin", CONTENT)
    assert len(server.asked) == (1 if way == "plain" else 2)


def test_a_server_that_stops_in_the_middle_is_asked_for_the_rest(server: Server, tmp_path: Path) -> None:
    assert download(server, "halves").get(tmp_path).read_bytes() == CONTENT
    assert server.asked[:3] == [None, f"bytes={HALF}-", f"bytes={HALF + HALF // 2}-"]


@pytest.mark.parametrize(
    ("way", "told"),
    [
        ("lost", r"404 Not Found"),
        ("dead", r"Remote end closed connection"),
        ("other", r"has the SHA-256 .*, and not .*: it is another file"),
        ("no_range", rf"it broke off after {HALF} of {len(CONTENT)} bytes"),
    ],
)
def test_what_cannot_be_fetched_is_one_message_with_the_address(
    server: Server, tmp_path: Path, way: str, told: str
) -> None:
    with pytest.raises(ConfigError, match=f"data.bin.*{told}"):
        download(server, way).get(tmp_path)
    assert not (tmp_path / SHA256[:16]).exists()


def test_an_address_that_is_none_or_that_nobody_answers_is_a_message(tmp_path: Path) -> None:
    for address, told in (("data.bin", "unknown url type"), ("http://127.0.0.1:9/x", "Connection refused")):
        with pytest.raises(ConfigError, match=told):
            Download([Url(address)], SHA256, "CC0", "a test").get(tmp_path)


def test_a_server_without_ranges_sends_all_anew(server: Server, tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        download(server, "no_range").get(tmp_path)
    server.end.set()  # from now on it does not break off
    assert download(server, "no_range").get(tmp_path).read_bytes() == CONTENT
    assert server.asked == [None, f"bytes={HALF}-", f"bytes={HALF}-"]


@pytest.mark.parametrize(
    ("left", "asked"),
    [(CONTENT, []), (CONTENT + b"more", [f"bytes={len(CONTENT) + 4}-", None]), (CONTENT[:7], ["bytes=7-"])],
    ids=["whole", "too long", "a part"],
)
def test_what_a_kill_left_is_gone_on_with(server: Server, tmp_path: Path, left: bytes, asked: list[str | None]) -> None:
    partial = tmp_path / f"{SHA256[:16]}.partial"
    partial.mkdir()
    (partial / "data.bin").write_bytes(left)
    assert download(server, "plain").get(tmp_path).read_bytes() == CONTENT
    assert server.asked == asked


def test_another_part_than_was_asked_for_is_not_appended(server: Server, tmp_path: Path) -> None:
    partial = tmp_path / f"{SHA256[:16]}.partial"
    partial.mkdir()
    (partial / "data.bin").write_bytes(CONTENT[:7])
    with pytest.raises(ConfigError, match=r"bytes 8-/ came where bytes from 7 on were asked for"):
        download(server, "elsewhere").get(tmp_path)
    assert download(server, "elsewhere").get(tmp_path).read_bytes() == CONTENT


def test_a_killed_process_leaves_what_came_and_the_next_one_asks_for_the_rest(server: Server, tmp_path: Path) -> None:
    words = f"Download([Url({server.address('stalls')!r})], {SHA256!r}, '', '').get(Path({str(tmp_path)!r}))"
    code = f"from pathlib import Path\nfrom phalanx.train.prepared.downloads import Download, Url\n{words}"
    partial = tmp_path / f"{SHA256[:16]}.partial" / "data.bin"
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT) as process:
        until(lambda: partial.exists() and partial.stat().st_size == HALF)
        process.kill()
    assert download(server, "plain").get(tmp_path).read_bytes() == CONTENT
    assert server.asked == [None, f"bytes={HALF}-"]

"""The page of a run holds what its evaluations show, bounded in size, and nothing of a stranger's folder runs there."""

import re
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest

from phalanx import Audio, Image, Table, Text
from phalanx.launch.reporting import history, shown_files
from phalanx.launch.reporting.run_page import run_page
from phalanx.train.sinks.shown import Shown
from tests.launch.reporting.browser import document

TAKEN = "<script>document.title='taken'</script><img src=x onerror=\"document.title='taken'\">"


def show(run: Path, split: str, step: int, **items: Shown) -> Path:
    folder = run / "shown" / f"{split}_step_{step:08d}"
    folder.mkdir(parents=True, exist_ok=True)
    for name, item in items.items():
        (folder / f"{name}.{item.suffix}").write_bytes(item.content)
    return folder


def pixels(width: int = 8, height: int = 6) -> Image:
    return Image(np.full((3, height, width), 200, np.uint8))


def page(*runs: Path, script: str = "") -> str:
    return run_page([history.read(run) for run in runs], 1e9) + (f"<script>{script}</script>" if script else "")


def seen(text: str, tmp_path: Path) -> str:
    file = tmp_path / "page.html"
    file.write_text(text)
    return document(file, tmp_path)


def visible(found: str) -> list[int]:
    """The steps of what is not hidden."""
    return [int(step) for step in re.findall(r'<div data-step="(\d+)">', found)]


def test_a_slider_goes_over_the_steps_and_pictures_and_sound_are_read_by_a_real_browser(tmp_path: Path) -> None:
    run = tmp_path / "run"
    for step in (10, 20):
        sound = Audio(np.sin(np.arange(800) / 20), 8000)
        show(run, "val", step, said=sound, said_mel=pixels(), rows=Table(["a"], [["x"]]), note=Text(f"of {step}"))
    newest = "addEventListener('load', () => document.title = [...document.images].map(i => i.naturalWidth).join())"
    found = seen(page(run, script=newest), tmp_path)
    assert visible(found) == [20] * 4
    assert re.search(r"<title>8,8", found), "both pictures are read"
    assert re.search(r"said</figcaption>.*?said_mel</figcaption>.*?</figure>", found, re.DOTALL), "in one card"
    assert found.index('<audio controls=""') < found.index("said_mel")
    back = "const s = document.querySelector('input[type=range]'); s.value = 0; s.dispatchEvent(new Event('input'))"
    found = seen(page(run, script=back), tmp_path)
    assert visible(found) == [10] * 4
    assert "<output>step 10</output>" in found


def test_runs_are_side_by_side_each_with_its_newest_up_to_the_step(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    for step in (10, 30):
        show(one, "val", step, samples=pixels())
    show(other, "val", 20, samples=pixels(), extra=Text("a"))
    back = "const s = document.querySelector('input[type=range]'); s.value = 0; s.dispatchEvent(new Event('input'))"
    text = page(one, other, script=back)
    assert re.search(r'data-steps="10,20,30"', text)
    found = seen(text, tmp_path)
    assert visible(found) == [10], "the other run has shown nothing by step 10"
    assert found.count('<p class="quiet none">nothing by then</p>') == 2


def test_a_strangers_folder_runs_nothing(tmp_path: Path) -> None:
    run = tmp_path / "run"
    folder = show(run, "val", 1, note=Text(TAKEN), rows=Table([TAKEN, "</table>"], [[TAKEN, "'\"><b>"]]), fine=pixels())
    size = struct.pack(">II", 8, 8)  # where a PNG has it
    (folder / "svg.png").write_bytes(b"<svg xmlns='a'>\n" + size + f"{TAKEN}{' ' * 40}</svg>".encode())
    (folder / "sound.wav").write_text(TAKEN)
    (folder / f"{TAKEN.replace('/', '')[:60]}.txt").write_text("a name")
    (folder / "page.html").write_text(TAKEN)
    (run / "secret.txt").write_text("a secret of the reader")
    (folder / "link.txt").symlink_to(run / "secret.txt")
    (run / "shown" / "val_step_00000002").symlink_to(run)
    (run / "shown" / f"{TAKEN.replace('/', '')[:50]}_step_00000003").mkdir()
    text = page(run)
    found = seen(text, tmp_path)
    assert "<title>run</title>" in found
    assert "a secret" not in text
    plain = re.sub(r"<(script|style)\b.*?</\1>", "", found, flags=re.DOTALL)
    assert re.findall(r'\ssrc="([^,"]*)', plain) == ["data:image/png;base64"]
    assert "3 files of run" in re.sub(r"\s+", " ", text), "the SVG, the sound and the link"
    assert "&lt;script&gt;document.title='taken'" in found, "told as the text that it is"


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width: int, height: int, size: int) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", bytes(size)) + chunk(b"IEND", b"")


def test_a_page_is_bounded_and_the_newest_come_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tmp_path / "run"
    for step in range(1, 8):
        (show(run, "val", step) / "picture.png").write_bytes(png(10, 10, 1000))
    monkeypatch.setattr(shown_files, "PAGE_BYTES", 4 * 1100)
    found = shown_files.shown_files({"run": run})
    assert [shot.step for shot in found.shots["val"]["picture"]["run"]] == [1, 5, 6, 7]
    assert found.left_out == {"run": 3}
    for width, height in ((0, 1), (100_000, 1), (8000, 8000)):
        (show(run, "val", 9) / "picture.png").write_bytes(png(width, height, 10))
        assert 9 not in shown_files.shown_files({"run": run}).steps("val"), "no picture that fills the memory"


def test_a_damaged_folder_gives_a_page_still(tmp_path: Path) -> None:
    run = tmp_path / "run"
    folder = show(run, "val", 1, note=Text("fine"))
    (folder / "rows.csv").write_bytes(b'"a\x00\xff' + b"x" * 300_000)
    (folder / "cut.png").write_bytes(pixels().content[:20])
    (folder / "empty.txt").write_bytes(b"")
    (run / "shown" / "file_step_00000001").write_text("no folder")
    assert "fine" in page(run)

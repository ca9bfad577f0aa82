"""Real texts as they are prepared, from archives and lists of their form with a few entries."""

import io
import json
import tarfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from phalanx.common.files import sha256
from phalanx.exit.codes import ConfigError
from phalanx.train.data.text import rated_sentences
from phalanx.train.data.text.pairs import debian_packages
from phalanx.train.data.text.pairs.text_pairs import read_pairs
from phalanx.train.data.text.rated_sentences import PARTS, RatedSentences
from phalanx.train.prepared.cache import Cache, Output
from phalanx.train.prepared.downloads import Download

DESCRIPTION = "Package: {0}\nDescription-md5: {1}\nDescription-{2}: {3}\n {4}\n .\n {5}\n"


class Local:
    def __init__(self, file: Path) -> None:
        self.file = file

    def fetch(self, folder: Path, sha256: str) -> Path:
        (folder / self.file.name).write_bytes(self.file.read_bytes())
        return folder / self.file.name


def packed(files: dict[str, bytes], path: Path) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cache:
    """With forty rated sentences of each part, of forty documents."""
    lines = [f"{i}_1\t{(i % 5 - 2) / 2}\tSentence {i} of a &amp; b\n" for i in range(40)]
    files = {f"hutto_ICWSM_2014/{name}_GroundTruth.txt": "".join(lines).encode() for name in PARTS.values()}
    inner = packed(files, tmp_path / "inner.tar.gz").read_bytes()
    outer = packed({rated_sentences._INNER: inner}, tmp_path / "outer.tar.gz")
    download = Download((Local(outer),), sha256(outer), "none", "this test")
    monkeypatch.setattr(rated_sentences, "_DOWNLOADS", (download,))
    return Cache(tmp_path / "cache")


def test_rated_sentences_are_those_with_a_sign_and_no_document_is_on_both_sides(cache: Cache) -> None:
    train, held_out = (
        RatedSentences(["movies"], split, "bytes", 99, True, cache, True) for split in ("train", "held_out")
    )
    assert len(train) + len(held_out) == 32  # eight are rated 0
    assert len(held_out) > 0
    texts = [bytes(row[row > 0].tolist()).decode() for row in [train[i][0] for i in range(len(train))]]
    assert all("a & b" in text for text in texts)
    soft = RatedSentences(["movies"], "train", "bytes", 99, True, cache, True, soft_labels=1.0)
    assert soft[0][1].shape == (2,)
    assert (soft[0][1].argmax() == train[0][1]).item()


@pytest.mark.parametrize(
    ("parts", "split", "told"), [(["books"], "train", "no part 'books'"), ([], "train", "no part 'none'")]
)
def test_an_unknown_part_is_named(cache: Cache, parts: list[str], split: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        RatedSentences(parts, split, "bytes", 99, True, cache, True)


def lists(folder: Path) -> list[Path]:
    """Of forty packages, each with a description in English and German, which the last lacks a paragraph of."""
    packages, english, german = "", "", ""
    for i in range(40):
        packages += f"Package: p{i}\nSource: s{i}\nSection: {'games' if i % 2 else 'net'}\n\n"
        said = (f"A program number {i}", f"It runs {i}", f"Fast {i} x")
        english += DESCRIPTION.format(f"p{i}", f"{i:032}", "en", *said) + "\n"
        second = "Nur dies" if i == 39 else f"Es laeuft {i}\n .\n Schnell {i} x"
        german += f"Package: p{i}\nDescription-md5: {i:032}\nDescription-de: Programm Nummer {i}\n {second}\n\n"
    made = []
    for name, text in {"Packages": packages, "Translation-en": english, "Translation-de": german}.items():
        (folder / name).write_text(text, encoding="utf-8")
        made.append(folder / name)
    return made


def test_sections_and_translations_are_split_by_source_package(tmp_path: Path) -> None:
    files = lists(tmp_path)
    debian_packages._write_sections(files[:2], Output(tmp_path, "sections"))
    sections = json.loads((tmp_path / debian_packages._TEXTS).read_text())
    assert sections["classes"] == ["games", "net"]
    assert len(sections["train"]) + len(sections["held_out"]) == 40
    assert len(sections["held_out"]) in range(1, 8)
    packages = debian_packages._packages(files[0])
    assert packages["p3"] == ("s3", "games")
    texts = [debian_packages._descriptions_of(file.read_text()) for file in files[1:]]
    pairs = [pair for _, pair in debian_packages._pairs(texts[0], texts[1], 100)]
    assert ("A program number 3", "Programm Nummer 3") in pairs
    assert not [pair for pair in pairs if pair[1] == "Nur dies"], "sides with unequally many paragraphs"


@pytest.mark.parametrize(
    ("sides", "told"),
    [
        (("a\nb\n", "c\n"), "has 2 lines and .* 1: line 2 has no partner"),
        (("a\n \n", "c\nd\n"), "line 2: the source has no text"),
        (("a\nb\n", "c\n\n"), "line 2: the target has no text"),
    ],
)
def test_files_that_are_no_pairs_are_told_by_line(tmp_path: Path, sides: Sequence[str], told: str) -> None:
    source, target = tmp_path / "source.txt", tmp_path / "target.txt"
    for path, content in zip((source, target), sides, strict=True):
        path.write_text(content)
    with pytest.raises(ConfigError, match=told):
        read_pairs(str(source), str(target), None, "utf-8")

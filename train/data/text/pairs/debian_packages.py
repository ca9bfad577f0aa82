"""Debian's packages, their descriptions and translations of these: real sentences, from the lists that apt reads."""

import functools
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

from phalanx.exit.codes import ConfigError

from ....prepared.cache import Cache, Output, Recipe
from ....prepared.debian_index import DebianIndex
from ....prepared.downloads import Download
from ..labelled_texts import LabelledTexts
from ..tokens.tokenizer import FILE as TOKENIZER
from .text_pairs import Pair, Pairs, read_prepared, write_pairs, write_tokenizer

_SPLITS = ("train", "held_out")
_SECTIONS = 20  # the largest ones
_HELD_OUT = 20  # one in so many source packages
_SHORTEST = 10  # characters of a paragraph that is translated
_UNTRANSLATED = "<trans>"  # marks what nobody has translated yet
_TEXTS = "texts.json"


def _list(name: str, checksum: str) -> Download:
    return Download(
        ways=(DebianIndex("bookworm", name),),
        sha256=checksum,
        licence="as each package's own, which its authors chose",
        origin="Debian 12.15, main; translations by the Debian Description Translation Project, https://ddtp.debian.org",
    )


# The hashes are those of the release's InRelease. Its point releases have ended.
_PACKAGES = _list("Packages", "515e692f2c4121c6fcec444ef100cc18f79a991910615f3a88c8b7becfc94d2f")
_ENGLISH = _list("Translation-en", "62f59c3cdca9786e4f7adf9002f9f5729a684adcb4667e58e448dec9b5a46c7f")
_TRANSLATED = {"de": _list("Translation-de", "adac331fc51f9a00c1b4120b4ac87423be2b1f1615d4f288c7cbc2d5258c0650")}


class Description(NamedTuple):
    """Of a package: its name, and its short text and paragraphs; a paragraph is one line here."""

    package: str
    paragraphs: tuple[str, ...]


class PackageSections(LabelledTexts):
    """English descriptions of packages, and which of the 20 largest sections of Debian each is in.

    The `split` held_out is a twentieth of the source packages: packages of one source resemble each other.
    """

    def __init__(self, split: str, tokenizer: str, longest: int, lower: bool, cache: Cache, download: bool) -> None:
        _check_split(split)
        folder = cache.prepared(Recipe("package_sections", 1, (_PACKAGES, _ENGLISH), _write_sections, None), download)
        found = json.loads((folder / _TEXTS).read_text(encoding="utf-8"))
        rows = found[split]
        super().__init__(
            [text for text, _ in rows], [label for _, label in rows], found["classes"], tokenizer, longest, lower
        )


class PackageTranslations(Pairs):
    """Paragraphs of descriptions in English, of 10 to `characters` characters, with their translations to `language`.

    `tokenizer` byte pairs are trained on the training texts of both languages. The `split` held_out is a twentieth of the
    source packages, without paragraphs that are in train, too.
    """

    def __init__(
        self, language: str, split: str, characters: int, tokenizer: int, longest: int, cache: Cache, download: bool
    ) -> None:
        _check_split(split)
        if language not in _TRANSLATED:
            raise ConfigError(
                f"No translations to language={language} are listed. Type one of {', '.join(_TRANSLATED)}"
            )
        options = {"language": language, "characters": characters, "tokenizer": tokenizer}
        lists = (_PACKAGES, _ENGLISH, _TRANSLATED[language])
        write = functools.partial(_write_pairs, characters, tokenizer)
        folder = cache.prepared(Recipe("package_translations", 1, lists, write, options), download)
        super().__init__(read_prepared(folder / f"{split}.jsonl"), folder / TOKENIZER, longest)


def _check_split(split: str) -> None:
    if split not in _SPLITS:
        raise ConfigError(f"The packages have no split {split!r}. Type split=train or split=held_out")


def _write_sections(files: Sequence[Path], out: Output) -> None:
    packages, english = _packages(files[0]), _descriptions_of(_text(files[1]))
    sections = {package: section for package, (_, section) in packages.items()}
    rows = [(each.package, " ".join(each.paragraphs)) for each in english.values() if each.package in packages]
    largest = Counter(sections[package] for package, _ in rows).most_common(_SECTIONS)
    classes = sorted(section for section, _ in largest)
    rows = [row for row in rows if sections[row[0]] in classes]
    out_of_train = _held_out([packages[package][0] for package, _ in rows])
    found: dict[str, Any] = {"classes": classes, "train": [], "held_out": []}
    for (package, text), held_out in zip(rows, out_of_train, strict=True):
        found[_SPLITS[held_out]].append((text, classes.index(sections[package])))
    out.json(_TEXTS, found)


def _write_pairs(characters: int, tokenizer: int, files: Sequence[Path], out: Output) -> None:
    """The pairs of both splits, and the tokenizer trained on those of train."""
    packages = _packages(files[0])
    english, translated = (_descriptions_of(_text(file)) for file in files[1:])
    named = {pair: package for package, pair in _pairs(english, translated, characters)}  # each pair once
    sources = [packages[package][0] if package in packages else package for package in named.values()]
    held_out = _held_out(sources)
    train = [pair for pair, out_of_train in zip(named, held_out, strict=True) if not out_of_train]
    known = {source for source, _ in train}
    rest = [pair for pair, is_out in zip(named, held_out, strict=True) if is_out and pair[0] not in known]
    write_pairs(out, f"{_SPLITS[0]}.jsonl", train)
    write_pairs(out, f"{_SPLITS[1]}.jsonl", rest)
    with out.file(TOKENIZER) as path:
        write_tokenizer(train, tokenizer, path)


def _pairs(
    english: Mapping[str, Description], translated: Mapping[str, Description], characters: int
) -> Iterator[tuple[str, Pair]]:
    """Package and paragraph with its translation, of descriptions that have equally many paragraphs on both sides."""
    for checksum in sorted(translated.keys() & english.keys()):
        ours, theirs = english[checksum], translated[checksum]
        if len(ours.paragraphs) == len(theirs.paragraphs):
            for source, target in zip(ours.paragraphs, theirs.paragraphs, strict=True):
                short = _SHORTEST <= len(source) <= characters and len(target) <= 2 * characters
                if short and target and _UNTRANSLATED not in target:
                    yield ours.package, (source, target)


def _packages(file: Path) -> dict[str, tuple[str, str]]:
    """The source package and the section of each package."""
    found = {}
    for block in _text(file).split("\n\n"):
        package, section = _field(block, "Package"), _field(block, "Section")
        if package and section:
            source = _field(block, "Source") or package
            found[package] = (source.split(" ")[0], section)
    return found


def _descriptions_of(text: str) -> dict[str, Description]:
    """By the MD5 of the English text, which translations give, too."""
    found = {}
    for block in text.split("\n\n"):
        checksum, package = _field(block, "Description-md5"), _field(block, "Package")
        content = re.search(r"^Description-(?!md5)\w+: (.*(?:\n .*)*)", block, re.M)
        if checksum and package and content:
            first, *rest = content[1].split("\n")
            further = re.split(r"\n \.(?=\n|$)", "\n".join(["", *rest])) if rest else []
            found[checksum] = Description(package, tuple(" ".join(part.split()) for part in (first, *further)))
    return found


def _text(file: Path) -> str:
    return file.read_text(encoding="utf-8")


def _field(block: str, name: str) -> str | None:
    match = re.search(rf"^{name}: (.*)$", block, re.M)
    return match[1] if match else None


def _held_out(sources: Sequence[str]) -> list[bool]:
    """Whether each is of the share of sources that a hash of their names chooses."""
    return [int(sha256(name.encode()).hexdigest()[:8], 16) % _HELD_OUT == 0 for name in sources]

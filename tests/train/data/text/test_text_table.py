"""Texts with classes come out of a user's table as they stand there, or one message names the file and the line."""

import copy
from pathlib import Path

import pytest
import torch

from phalanx.exit.codes import ConfigError
from phalanx.train.data.text.labelled_texts import TextTable

CLASSES = ["bad", "good"]
TABLES = {
    "t.tsv": 'label\ttext\ngood\tfine "film"\n\nbad\tno, not\n',
    "t.csv": '\ufefflabel,text\r\ngood,"fine ""film"""\r\n\r\nbad,"no, not"\r\n',
    "t.jsonl": '{"label": "good", "text": "fine \\"film\\"", "n": 1}\n\n{"text": "no, not", "label": "bad"}\n',
}


def table(folder: Path, name: str, content: str | bytes, **options: object) -> TextTable:
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return TextTable(str(folder / name), **{"classes": CLASSES, **options})  # type: ignore[arg-type]


@pytest.mark.parametrize("name", TABLES)
def test_each_kind_of_table_gives_the_same_texts_and_classes(tmp_path: Path, name: str) -> None:
    found = table(tmp_path, name, TABLES[name])
    texts, labels = found.__getitems__([1, 0])
    assert [bytes(token for token in text.tolist() if token) for text in texts] == [b"no, not", b'fine "film"']
    assert labels.tolist() == found.labels.flip(0).tolist() == [0, 1]
    assert texts.shape == (2, 11)
    assert texts[0, 7:].tolist() == [0] * 4
    assert found[0][0].tolist() == list(b'fine "film"')
    assert found.lengths.tolist() == [11, 7]
    other = table(tmp_path, "t.tsv", TABLES["t.tsv"])
    assert found.fingerprint() == other.fingerprint()
    assert found.fingerprint() != table(tmp_path, "t.tsv", TABLES["t.tsv"].replace("fine", "Fine")).fingerprint()


def test_texts_are_cut_and_made_small_as_asked_and_travel_to_workers(tmp_path: Path) -> None:
    found = table(tmp_path, "t.tsv", "label\ttext\ngood\tGRÖSSE\nbad\tNo\n", longest=4, lower=True)
    sent = copy.deepcopy(found)
    assert sent[0][0].tolist() == list("größe".encode()[:4]) or sent[0][0].tolist() == list("grösse".encode()[:4])
    torch.testing.assert_close(sent.__getitems__([0, 1]), found.__getitems__([0, 1]))
    assert found.preprocessing() == {"kind": "text", "tokenizer": "bytes", "lower": True, "padding": 0, "length": 4}


BAD = [
    ("a.tsv", "label\ttext\ngood\n", "a.tsv, line 2: 1 cells, and line 1 names 2 columns"),
    ("a.tsv", "Label\ttext\ngood\tx\n", "a.tsv, line 1: no column is called label.*columns are Label, text"),
    ("a.tsv", "label\ttext\ngood\tx\nbda\ty\n", "a.tsv, line 3: the label 'bda' is none of classes=.*Did you mean bad"),
    ("a.tsv", "label\ttext\ngood\tx\n", "a.tsv: no row has the label 'bad'"),
    ("a.tsv", "label\ttext\ngood\tx\nbad\t \n", "a.tsv, line 3: no text"),
    ("a.tsv", "label\ttext\ngood\tx\nbad\ty\0z\n", "a.tsv, line 3: a NUL character"),
    ("a.tsv", b"label\ttext\ngood\tx\nbad\tgr\xfc\xdfe\n", "a.tsv, line 3: byte 0xfc is no utf-8.*encoding="),
    ("a.tsv", "label\ttext\n", "a.tsv has no row"),
    ("a.tsv", "", "a.tsv has no row"),
    ("a.csv", 'label,text\ngood,"x\ny"\nbad,"a"b\n', "a.csv, line 4: .*Mend the line"),
    ("a.csv", 'label,text\ngood,"x\n', "a.csv, line 2: .*Mend the line"),
    ("a.jsonl", '{"label": "good", "text": "a\\u0000b"}\n', "a.jsonl, line 1: text has a NUL character"),
    ("a.jsonl", '{"label": "good", "text": "a\\ud800b"}\n', "a.jsonl, line 1: text has half of a surrogate pair"),
    ("a.jsonl", "[" * 100_000 + "\n", "a.jsonl, line 1: no JSON"),
    ("a.csv", "label,text,text\ngood,x,y\n", "a.csv, line 1: 2 columns are called text"),
    ("a.jsonl", '{"label": "good", "text": "x"}\n{"label": "bad"}\n', "a.jsonl, line 2: no key is called text"),
    ("a.jsonl", '{"label": "good", "text": "x"}\n{"label": bad}\n', "a.jsonl, line 2: no JSON"),
    ("a.jsonl", '{"label": "good", "text": ["x"]}\n', "a.jsonl, line 1: text is .* and no text"),
    ("a.jsonl", "[1]\n", "a.jsonl, line 1: no JSON object"),
    ("a.txt", "x", "a.txt is no table"),
]


@pytest.mark.parametrize(("name", "content", "message"), BAD)
def test_a_bad_table_is_told_with_file_and_line(tmp_path: Path, name: str, content: str | bytes, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as told:
        table(tmp_path, name, content)
    assert "\n" not in str(told.value)


def test_what_is_typed_wrong_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none.tsv cannot be read: No such file"):
        TextTable(str(tmp_path / "none.tsv"), CLASSES)
    for wrong, message in (
        ({"encoding": "utf9"}, "encoding=utf9 is not known"),
        ({"classes": ["good"]}, "two or more different labels"),
        ({"longest": 0}, "longest=0 leaves nothing"),
        ({"tokenizer": "word"}, "tokenizer=word is no file|package tokenizers"),
    ):
        with pytest.raises(ConfigError, match=message):
            table(tmp_path, "t.tsv", TABLES["t.tsv"], **wrong)
    latin = table(tmp_path, "l.tsv", "label\ttext\ngood\tgrün\nbad\tx\n".encode("latin-1"), encoding="latin-1")
    assert latin[0][0].tolist() == list("grün".encode())


@pytest.mark.parametrize("name", ["t.csv", "t.tsv"])
def test_a_text_may_be_as_long_as_a_book(tmp_path: Path, name: str) -> None:
    """Python's reader of tables takes cells of 131,072 characters, unless told."""
    between = "," if name == "t.csv" else "\t"
    found = table(tmp_path, name, f"label{between}text\ngood{between}{'x' * 200_000}\nbad{between}y\n", longest=300_000)
    assert found.lengths.tolist() == [200_000, 1]

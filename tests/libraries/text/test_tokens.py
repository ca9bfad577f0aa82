"""Tokens are those of the text, whatever it spells: nobody's words turn into the marks that a model reads."""

from pathlib import Path

import pytest

from phalanx.train.data.text.labelled_texts import TextTable
from phalanx.train.data.text.pairs.text_pairs import TextPairs
from phalanx.train.data.text.tokens.byte_pairs import OF_PAIRS, learn
from phalanx.train.data.text.tokens.file_tokenizer import FileTokenizer
from phalanx.train.prepared.cache import Cache

pytestmark = pytest.mark.zoo
PAD, BEGIN, END = 0, 1, 2


@pytest.fixture
def file(tmp_path: Path) -> Path:
    learn(["some words of some text"], 270, tmp_path / "tokenizer.json", special=OF_PAIRS, prefix_space=True)
    return tmp_path / "tokenizer.json"


def framing(file: Path) -> Path:
    """A tokenizer that puts its marks around each text, as BERT's does."""
    import tokenizers
    from tokenizers.processors import TemplateProcessing

    made = tokenizers.Tokenizer.from_file(str(file))
    made.post_processor = TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", BEGIN), ("</s>", END)])
    made.save(str(file))
    return file


def pairs(folder: Path, file: Path, source: str, target: str) -> TextPairs:
    (folder / "s").write_text(source)
    (folder / "t").write_text(target)
    return TextPairs(str(folder / "s"), str(folder / "t"), str(file), 64, Cache(folder / "cache"))


def test_marks_that_a_text_spells_are_text(tmp_path: Path, file: Path) -> None:
    """As of HTML, whose <s> is struck out: before, a target ended in its midst and a source had padding there."""
    found = pairs(tmp_path, file, "an <s>old</s> <pad> word\n", "ein <s>altes</s> <pad> Wort\n")
    source, target = found[0]["source"].tolist(), found[0]["target"].tolist()
    assert not {PAD, BEGIN, END} & {*source, *target[1:-1]}
    assert (target[0], target[-1]) == (BEGIN, END)
    assert found.decode(target) == found[0]["reference"] == "ein <s>altes</s> <pad> Wort"
    (tmp_path / "t.tsv").write_text("label\ttext\na\tx <pad> y\nb\tz\n")
    assert PAD not in TextTable(str(tmp_path / "t.tsv"), ["a", "b"], tokenizer=str(file))[0][0]


def test_a_target_begins_and_ends_once_whatever_the_tokenizer_puts_around_a_text(tmp_path: Path, file: Path) -> None:
    found = pairs(tmp_path, framing(file), "a\n", "b\n")
    target = found[0]["target"].tolist()
    assert target.count(BEGIN) == target.count(END) == 1
    assert found[0]["source"].tolist()[0] == BEGIN  # a source is read as the tokenizer's own model reads it


def test_pieces_of_a_long_text_have_its_separators_as_tokens_and_nothing_else(file: Path) -> None:
    (tokens,) = FileTokenizer(framing(file)).encode_pieces(["a</s>"])
    assert tokens.tolist()[-1] == END
    assert BEGIN not in tokens

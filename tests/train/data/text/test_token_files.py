"""Token files and their windows: each token once, by the index alone, and what is wrong with a file in one message."""

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from phalanx.exit.codes import ConfigError
from phalanx.train.data.text.token_file import TokenFile, write_token_file
from phalanx.train.data.text.windows import Tokens


def written(folder: Path, count: int = 50, vocabulary: int = 60, **changes: Any) -> str:
    """A file of the tokens 0 to count - 1, whose header says `changes` besides."""
    path = folder / "text.bin"
    parts = np.split(np.arange(count, dtype=np.uint32), [7, 7])
    header = write_token_file(path, parts, vocabulary, "bytes", None)
    path.with_suffix(".json").write_text(json.dumps(header | changes))
    return str(path)


@pytest.mark.parametrize(("length", "context"), [(7, 0), (49, 0), (7, 3), (10, 9)])
def test_each_token_but_the_first_is_a_target_once(tmp_path: Path, length: int, context: int) -> None:
    data = Tokens(written(tmp_path), length, context)
    tokens, targets = data.__getitems__(np.arange(len(data)))
    assert tokens.shape == targets.shape == (len(data), length)
    counted = targets != -100
    assert sorted(targets[counted].tolist()) == list(range(1, 50))
    assert targets[counted].equal(tokens[counted] + 1)
    assert all(int(row.nonzero()[0]) >= context for row in counted[1:])


def test_a_sample_is_a_function_of_its_index_alone(tmp_path: Path) -> None:
    """In any batch, after any other, and in a process that was sent the data set."""
    data = Tokens(written(tmp_path), 7, 2)
    whole = data.__getitems__(np.arange(len(data)))
    assert data._file._mapped is not None
    sent = copy.deepcopy(data)
    assert sent._file._mapped is None  # the tokens stay in their file
    for index in (len(data) - 1, 0, 3):
        for found in (data[index], sent[index]):
            assert all(torch.equal(part, batch[index]) for part, batch in zip(found, whole, strict=True))


@pytest.mark.parametrize(("vocabulary", "size"), [(1 << 16, 2), ((1 << 16) + 1, 4)])
def test_tokens_have_two_bytes_where_the_vocabulary_fits(tmp_path: Path, vocabulary: int, size: int) -> None:
    path = Path(written(tmp_path, vocabulary=vocabulary))
    assert path.stat().st_size == 50 * size
    assert TokenFile(path).windows(np.array([40]), 10).tolist() == [[*range(40, 50)]]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"dtype": "int64"}, "says dtype int64, and tokens are uint16 or uint32"),
        ({"dtype": "uint32"}, "has 100 bytes, and 50 tokens of uint32"),
        ({"tokens": 51}, "cut short, or of another type"),
        ({"tokens": "50"}, "has no tokens that is int"),
        ({"format": 2}, "is of format 2, and 1 is read"),
        ({"token_bytes": [1]}, "token_bytes that are not 60 whole numbers"),
        ({"token_bytes": ["1"] * 60}, "token_bytes that are not 60 whole numbers"),
    ],
)
def test_a_header_that_does_not_fit_its_file_is_told(tmp_path: Path, changes: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        Tokens(written(tmp_path, **changes), 7)


def test_a_token_out_of_the_vocabulary_is_told_with_its_place(tmp_path: Path) -> None:
    data = Tokens(written(tmp_path, vocabulary=50), 7)
    assert len(data[0][0]) == 7
    header = tmp_path / "text.json"
    header.write_text(json.dumps(json.loads(header.read_text()) | {"vocabulary": 45}))
    with pytest.raises(ConfigError, match=r"text.bin has the token 45 at place 45, the vocabulary of its header is 45"):
        Tokens(str(tmp_path / "text.bin"), 7)[6]
    with pytest.raises(ValueError, match="token 49 is out of the vocabulary of 49"):
        written(tmp_path, vocabulary=49)


def test_what_is_not_there_or_too_short_is_told(tmp_path: Path) -> None:
    path = written(tmp_path)
    with pytest.raises(ConfigError, match="has 50 tokens, a window takes 51"):
        Tokens(path, 50)
    with pytest.raises(ConfigError, match="leave no target"):
        Tokens(path, 7, 7)
    Path(path).unlink()
    with pytest.raises(ConfigError, match=r"text.bin cannot be read: No such file"):
        Tokens(path, 7)
    Path(path).with_suffix(".json").unlink()
    with pytest.raises(ConfigError, match=r"text.json, the header of text.bin, is not there. Write one"):
        Tokens(path, 7)

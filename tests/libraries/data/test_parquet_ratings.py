"""Ratings in parquet are those of the same table in text; what is wrong is told by file and line, which is a row."""

import sys
from pathlib import Path
from typing import Any

import pytest

from phalanx.exit.codes import ConfigError
from phalanx.train.data.ratings.ratings import RatingTable

pytestmark = pytest.mark.zoo


def written(file: Path, **columns: Any) -> str:
    import pyarrow
    from pyarrow import parquet

    parquet.write_table(pyarrow.table(columns), file)
    return str(file)


@pytest.mark.parametrize("kind", ["int16", "uint64", "string"])
def test_a_parquet_file_gives_the_samples_of_the_same_table_in_text(tmp_path: Path, kind: str) -> None:
    import pyarrow

    (tmp_path / "r.csv").write_text("item,stars,user\n0,4.5,2\n1,1,0\n")
    users = pyarrow.array([2, 0]).cast(kind)
    written(tmp_path / "r.parquet", item=[0, 1], more=["a", None], stars=[4.5, 1.0], user=users)
    text, table = (RatingTable(str(tmp_path / name), 3, 2, rating="stars") for name in ("r.csv", "r.parquet"))
    assert table.fingerprint() == text.fingerprint()
    assert [part.tolist() for part in table.__getitems__([1, 0])] == [[0, 2], [1, 0], [1.0, 4.5]]
    stars = RatingTable(written(tmp_path / "i.parquet", user=[0], item=[0], rating=[5]), 1, 1)
    assert stars.ratings.tolist() == [5.0]


@pytest.mark.parametrize(
    ("columns", "told"),
    [
        ({"user": [0, 3]}, r"r.parquet, line 2: user is '3', and no whole number from 0 to 2"),
        ({"user": [0, -1]}, r"line 2: user is '-1'"),
        ({"user": [0, None]}, r"line 2: user is null, and no text or number"),
        ({"item": [0.0, 1.5]}, r"line 1: item is '0.0', and no whole number"),
        ({"item": ["0", "x"]}, r"line 2: item is 'x'"),
        ({"rating": [1.0, float("nan")]}, r"line 2: rating is 'nan', and no finite number"),
        ({"rating": ["1", "good"]}, r"line 2: rating is 'good'"),
        ({"rating": [True, False]}, r"line 1: rating is true, and no text or number"),
        ({"user": [], "item": [], "rating": []}, r"r.parquet has no row"),
    ],
)
def test_a_wrong_row_is_named_by_file_and_row(tmp_path: Path, columns: dict[str, Any], told: str) -> None:
    file = written(tmp_path / "r.parquet", **{"user": [0, 1], "item": [0, 1], "rating": [1.0, 2.0], **columns})
    with pytest.raises(ConfigError, match=told):
        RatingTable(file, users=3, items=2)


def test_a_file_that_is_not_as_it_should_be_is_one_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = written(tmp_path / "r.parquet", users=[0], item=[0], rating=[1.0])
    with pytest.raises(ConfigError, match=r"r.parquet, line 1: no column is called user. Did you mean users"):
        RatingTable(file, users=3, items=2)
    content = (tmp_path / "r.parquet").read_bytes()
    for name, damaged in (
        ("cut", content[: len(content) // 2]),
        ("empty", b""),
        ("text", b"user,item,rating\n0,0,1\n"),
    ):
        (tmp_path / f"{name}.parquet").write_bytes(damaged)
        with pytest.raises(ConfigError, match=rf"{name}.parquet cannot be read: .*Type the path"):
            RatingTable(str(tmp_path / f"{name}.parquet"), users=3, items=2)
    with pytest.raises(ConfigError, match=r"none.parquet cannot be read: .*No such file"):
        RatingTable(str(tmp_path / "none.parquet"), users=3, items=2)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ConfigError, match=r"which is not installed. Type: pip install 'phalanx\[data\]'"):
        RatingTable(file, users=3, items=2)

"""Tables of parquet are read as those of text are, with a row for a line."""

from pathlib import Path

import pytest

from phalanx.exit.codes import ConfigError
from phalanx.train.data.ratings.ratings import RatingTable
from phalanx.train.data.text.labelled_texts import TextTable

pytestmark = pytest.mark.zoo


def written(path: Path, **columns: list[object]) -> str:
    import pyarrow
    from pyarrow import parquet

    parquet.write_table(pyarrow.table(columns), path)
    return str(path)


def test_texts_and_ratings_are_those_of_a_table_of_text(tmp_path: Path) -> None:
    file = written(tmp_path / "t.parquet", n=[1, 2], text=["a film, so", "grün"], label=["good", "bad"])
    (tmp_path / "t.jsonl").write_text('{"text": "a film, so", "label": "good"}\n{"text": "grün", "label": "bad"}\n')
    one, other = (TextTable(name, ["bad", "good"]) for name in (file, str(tmp_path / "t.jsonl")))
    assert one.fingerprint() == other.fingerprint()
    found = RatingTable(written(tmp_path / "r.parquet", user=[0, 1], item=[1, 0], rating=[3.5, 4.0]), users=2, items=2)
    assert (found.ratings.tolist(), found.items.tolist()) == ([3.5, 4.0], [1, 0])


def test_what_is_wrong_is_told_by_file_and_row(tmp_path: Path) -> None:
    holes = written(tmp_path / "h.parquet", user=[0, None], item=[0, 1], rating=[1.0, 2.0])
    with pytest.raises(ConfigError, match=r"h\.parquet, line 2: user is null, and no text or number"):
        RatingTable(holes, users=2, items=2)
    with pytest.raises(ConfigError, match=r"no column is called text.*columns are user, item, rating"):
        TextTable(holes, ["a", "b"])
    (tmp_path / "d.parquet").write_bytes(b"PAR1 but nothing else")
    with pytest.raises(ConfigError, match=r"d\.parquet cannot be read"):
        TextTable(str(tmp_path / "d.parquet"), ["a", "b"])

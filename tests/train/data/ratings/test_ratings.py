"""Ratings: a table of one's own is checked by line; the prepared set is split once."""

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest

from phalanx.exit.codes import ConfigError
from phalanx.train.data.ratings import movielens
from phalanx.train.data.ratings.ratings import RatingTable
from phalanx.train.prepared.cache import Output
from phalanx.train.prepared.mapped_array import MappedArray


def test_a_table_gives_users_items_and_ratings_and_batches_as_its_samples(tmp_path: Path) -> None:
    (tmp_path / "r.csv").write_text("item,stars,user\n0,4.5,2\n1,1,0\n")
    table = RatingTable(str(tmp_path / "r.csv"), users=3, items=2, rating="stars")
    assert [[part.item() for part in table[i]] for i in range(2)] == [[2, 0, 4.5], [0, 1, 1.0]]
    assert [part.tolist() for part in table.__getitems__([1, 0])] == [[0, 2], [1, 0], [1.0, 4.5]]


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ("3,0,4", r"line 3: user is '3', and no whole number from 0 to 2"),
        ("0,x,4", r"line 3: item is 'x'"),
        ("-1,0,4", r"line 3: user is '-1'"),
        ("0,0,good", r"line 3: rating is 'good', and no finite number"),
        ("0,0,nan", r"line 3: rating is 'nan'"),
        ("0,0", r"line 3: 2 cells"),
    ],
)
def test_a_wrong_row_is_named_by_file_and_line(tmp_path: Path, row: str, told: str) -> None:
    (tmp_path / "r.csv").write_text(f"user,item,rating\n0,0,1\n{row}\n")
    with pytest.raises(ConfigError, match=told):
        RatingTable(str(tmp_path / "r.csv"), users=3, items=2)


def test_movielens_is_read_from_its_archive_with_users_and_items_from_zero(tmp_path: Path) -> None:
    text = b"user\tmovie\tscore\ttid\nc\tc\tc\ttime\nrow=1\tcol=1\tclass\tmeta\n196\t242\t3\t881250949\n1\t1682\t5\t7\n"
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as archive:
        member = tarfile.TarInfo(movielens._MEMBER)
        member.size = len(text)
        archive.addfile(member, io.BytesIO(text))
    movielens.RECIPE.write([tmp_path / "a.tar.gz"], Output(tmp_path, "m"))
    assert np.array_equal(MappedArray(tmp_path / "ratings.npy")[:], [[195, 241, 3, 881250949], [0, 1681, 5, 7]])


def test_ratings_of_json_lines_may_be_fractions(tmp_path: Path) -> None:
    (tmp_path / "r.jsonl").write_text('{"user": 0, "item": 1, "rating": 3.5}\n{"user": 1, "item": 0, "rating": 4}\n')
    assert RatingTable(str(tmp_path / "r.jsonl"), users=2, items=2).ratings.tolist() == [3.5, 4.0]

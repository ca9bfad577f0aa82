"""Ratings on real processes."""

from pathlib import Path

import numpy as np
import pytest

from tests.compare_runs import distance, same
from tests.ranks import Starter, quoted
from tests.train.small_runs import killed_after


def words(folder: Path) -> tuple[str, ...]:
    """A small factorisation of 200 ratings in a table."""
    draw = np.random.default_rng(0)
    table = np.stack([draw.integers(0, 12, 200), draw.integers(0, 20, 200), draw.integers(1, 6, 200)], 1)
    (folder / "r.csv").write_text("\n".join(["user,item,rating", *(",".join(map(str, row)) for row in table)]))
    sets = [
        f"data.{name}={{_target_: phalanx.data.RatingTable, file: {quoted(str(folder / 'r.csv'))}, users: 12, items: 20}}"
        for name in ("train", "eval")
    ]
    return (
        *("data=digits", "data.augment=null", *(f"~data.{name}" for name in ("train",)), f"+{sets[0]}", sets[1]),
        *("model=matrix_factorization", "model.users=12", "model.items=20", "model.width=4", "model.dropout=0.2"),
        *(
            "task=rating_prediction",
            "train.precision=fp64",
            "train.micro_batch=4",
            "train.epochs=null",
            "train.steps=6",
        ),
        *(
            "train.global_batch=16",
            "eval.every=3",
            "eval.batch=70",
            "checkpoint.every=2",
            "checkpoint.best_metric=rmse",
            "log.every=1",
        ),
    )


def test_a_run_is_killed_and_continued_to_the_same_bits_and_is_the_same_on_any_number_of_ranks(
    starter: Starter, tmp_path: Path
) -> None:
    run = words(tmp_path)
    runs = {ranks: starter.train(ranks, *run, name=f"on{ranks}") for ranks in (1, 2, 3)}
    same(runs[2], killed_after(2, starter, 2, *run))
    for ranks in (2, 3):
        assert distance(runs[1], runs[ranks]) < 1e-9
        for alone, shared in zip(runs[1].metrics("eval"), runs[ranks].metrics("eval"), strict=True):
            for name in ("rmse", "ndcg", "auc"):
                assert shared[name] == pytest.approx(alone[name], rel=1e-9)

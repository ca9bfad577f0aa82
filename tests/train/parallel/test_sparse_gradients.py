"""Tables whose gradients are sparse train to the weights that dense gradients give, on any number of ranks."""

import re
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tests.ranks import DDP, ROOT, Results, Starter
from tests.train.faulty_parts import CLASSES, WIDTH
from tests.train.parallel.flat_strategy import FLAT
from tests.train.small_runs import killed_after, planted

SGD = ("optim=sgd", "optim.momentum=0", "optim.lr=0.05", "train.precision=fp64", "train.clip_norm=1.5")


class Looking(nn.Module):
    """Looks its input up in a table; `tied` uses the table for the answer, too."""

    def __init__(self, sparse: bool = True, dense: bool = True, tied: bool = False) -> None:
        super().__init__()
        self.table = nn.Embedding(WIDTH, CLASSES, sparse=sparse)
        self.bags = nn.EmbeddingBag(WIDTH, CLASSES, sparse=sparse)
        self.last = nn.Linear(CLASSES, CLASSES) if dense else nn.Identity()
        self.tied = tied

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        rows = inputs.topk(3, 1).indices
        hidden = self.table(rows[:, 0]) + self.bags(rows)
        logits: torch.Tensor = self.last(F.linear(hidden, self.table.weight[:CLASSES]) if self.tied else hidden)
        return logits


def run(**options: Any) -> tuple[str, ...]:
    return (
        *(word for word in planted(**options) if not word.startswith("model")),
        *("~model", "+model._target_=tests.train.parallel.test_sparse_gradients.Looking"),
        *("train.micro_batch=2", "train.steps=10", "train.epochs=null", "log.every=1", "checkpoint.every=3"),
    )


def check_close(one: Results, other: Results) -> None:
    ours: Mapping[str, torch.Tensor] = one.weights()
    for name, tensor in other.weights().items():
        torch.testing.assert_close(ours[name], tensor, rtol=0, atol=1e-9)
    norms = [[line["grad_norm"] for line in its.metrics("train")] for its in (one, other)]
    assert norms[0] == pytest.approx(norms[1], rel=1e-9)
    assert min(norms[0]) < 1.5 < max(norms[0]), "some are clipped, and others not"


def test_they_train_as_dense_ones_do_on_any_number_of_ranks(starter: Starter) -> None:
    """Three ranks share four micro-batches, so one has fewer; with DDP the tables are none of its business."""
    dense = starter.train(1, *run(), *SGD, "+model.sparse=false", name="dense")
    for ranks, knobs in ((1, ()), (2, ()), (3, (DDP,)), (2, ("parallel.find_unused=true",))):
        check_close(starter.train(ranks, *run(), *SGD, *knobs, name=f"on{ranks}{len(knobs)}"), dense)


def test_tables_alone_train_and_a_rank_without_a_sample_takes_part(starter: Starter) -> None:
    words = (*run(samples=18), *SGD, "train.global_batch=8", "+model.dense=false", "train.epochs=1", "train.steps=null")
    dense = starter.train(1, *words, "+model.sparse=false", name="dense")
    found = starter.train(3, *words, DDP, name="sparse")
    for name, tensor in dense.weights().items():
        torch.testing.assert_close(found.weights()[name], tensor, rtol=0, atol=1e-9)


SPARSE_ADAM = "+optim.groups=[{match: 'table|bags', optimizer: {_target_: torch.optim.SparseAdam, lr: 0.01}}]"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("optim=adam",), "cannot take a step: .*[Ss]parse.* torch.optim.SparseAdam"),
        (("optim=sgd",), r"optim\.momentum=0\.9 moves all rows of a table in each step"),
        (("optim=adam", SPARSE_ADAM, "+model.tied=true"), r"table\.weight is the table of .* its gradient is dense"),
        (("optim=sgd", "optim.momentum=0", FLAT), "is sparse, and Flat takes dense ones alone"),
    ],
)
def test_what_takes_dense_gradients_alone_is_said_before_training(
    starter: Starter, words: tuple[str, ...], said: str
) -> None:
    ended = starter.run(2, *run(), *words, "run.name=run")
    assert ended.codes == [2, 2], ended.output
    assert re.search(said, ended.output), ended.output
    assert not starter.results("run").folder.exists()


def test_the_recipe_trains_a_recommender_and_continues_to_the_same_bits(starter: Starter) -> None:
    """On two ranks; tests/libraries/recipes has one, too, and holds each line against the undisturbed run's."""
    home = ROOT / "docs" / "recipes" / "recommender"
    words = (
        *("--config-dir", str(home / "conf"), "experiment=recommender", "checkpoint.every=20", "log.every=10"),
        *("train.epochs=null", "train.steps=150", "eval.every=null"),
    )
    path = {"PYTHONPATH": str(home)}
    undisturbed = starter.train(2, *words, name="undisturbed", environ=path)
    again = killed_after(40, starter, 2, *words, environ=path)
    assert again.sha256 == undisturbed.sha256
    losses = [line["loss"] for line in again.metrics("train")]
    assert losses[-1] < losses[0]

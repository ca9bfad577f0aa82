"""What goes to data workers and comes from them takes one descriptor, arrives as it was, and is sent once."""

import os
import resource
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import pytest
import torch

from phalanx.train.loading.loader import Fetcher
from phalanx.train.loading.shard import Span
from phalanx.train.loading.workers.tensor_packing import pack, unpack
from tests.ranks import Starter
from tests.train.loading.batches import flat, source
from tests.zoo.datasets import Pieces, Rows, Sent, Wide

pytestmark = pytest.mark.xdist_group("data workers")  # they share a fork server, which imports torch

FEW = 200  # descriptors beyond those in use, where a tensor each would take thousands


@pytest.fixture
def _few_descriptors() -> Iterator[None]:
    """Also of the workers, which inherit the limit only where the fork server begins within it: so it is set there."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + FEW, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("_few_descriptors")
def test_a_list_of_many_tensors_goes_to_workers() -> None:
    rows = Rows(5000)
    batches = Fetcher(source(rows), 2, 2, False).batches(Span(i * 8, i * 8 + 8) for i in range(4))
    here = Fetcher(source(rows), 0, 2, False).batches(Span(i * 8, i * 8 + 8) for i in range(4))
    assert [flat(batch) for batch in batches] == [flat(batch) for batch in here]


@pytest.mark.usefixtures("_few_descriptors")
def test_batches_of_many_tensors_come_from_workers() -> None:
    batches = Fetcher(source(Wide(64, 1500)), 2, 2, False).batches(Span(i * 2, i * 2 + 2) for i in range(8))
    held = list(batches)
    assert len(held) == 8
    assert all(len(batch) == 1500 for batch in held)
    assert held[3]["column_1499"][:, 1].tolist() == [1499, 1499]


def test_what_a_data_set_holds_arrives_as_it_was() -> None:
    here, there = (next(Fetcher(source(Pieces()), workers, 1, False).batches([Span(0, 1)])) for workers in (0, 1))
    assert flat(here) == flat(there)
    assert there["views"][0].tolist() == [100.0, 7.0, 8.0, 9.0, 10.0, 11.0], "views of one memory stay that"
    pieces = Pieces()
    list(Fetcher(source(pieces), 2, 1, False).batches([Span(0, 1), Span(1, 2)]))
    assert pieces.shared.tolist() == [1.0, 1.0], "what its author shared is shared"
    assert pieces.whole[1, 0] == 6.0


def test_an_answer_arrives_as_it_was() -> None:
    table = torch.arange(60.0).view(6, 10)
    answer = {
        "dense": table,
        "transposed": table.t(),
        "column": table[:, 3],
        "expanded": torch.ones(1, 3).expand(4, 3),
        "images": torch.ones(2, 3, 4, 5).to(memory_format=torch.channels_last),
        "scalar": torch.tensor(True),
        "complex": torch.ones(3, dtype=torch.complex64) * 1j,
        "half": torch.ones(3, dtype=torch.bfloat16),
        "empty": torch.empty(0, 3),
        "words": ["a", ("b", None)],
        "twice": [table, table],
    }
    parcel = pack(answer)
    found = unpack(parcel)
    assert parcel.memory.is_shared()  # type: ignore[no-untyped-call]
    assert parcel.memory.numel() < 2000, "a view is packed without the rest of its memory"
    assert found.keys() == answer.keys()
    assert found["words"] == answer["words"]
    for name in ("dense", "transposed", "expanded", "images", "scalar", "complex", "half", "empty", "column"):
        assert torch.equal(found[name], answer[name]), name  # type: ignore[arg-type]
        assert found[name].dtype == answer[name].dtype, name  # type: ignore[attr-defined]
    assert found["images"].is_contiguous(memory_format=torch.channels_last)


def test_workers_of_an_evaluation_stay_for_the_next(tmp_path: Path) -> None:
    sent = Sent(40, str(tmp_path / "journal"))
    fetcher = Fetcher(source(sent), 2, 1, False, stay=True)
    spans = [Span(i * 8, i * 8 + 8) for i in range(5)]
    evaluations = [[flat(batch) for batch in fetcher.batches(spans)] for _ in range(4)]
    assert evaluations == [evaluations[0]] * 4
    assert (tmp_path / "journal").read_text().count("sent") == 2
    assert not list(chain(fetcher.batches([]), Fetcher(source(sent), 2, 1, False).batches([])))
    assert (tmp_path / "journal").read_text().count("sent") == 2, "no worker is begun where there is nothing to ask"


def test_a_rank_without_a_batch_to_evaluate_is_quiet(starter: Starter) -> None:
    """And so are workers of whom there are more than batches."""
    ended = starter.run(
        2,
        *("data.train._target_=tests.zoo.datasets.Rows", "~data.train.split", "+data.train.samples=32"),
        *("data.eval._target_=tests.zoo.datasets.Rows", "~data.eval.split", "+data.eval.samples=4"),
        *("data.augment=null", "data.workers=2", "model=mlp", "model.inputs=12", "model.hidden=[8]"),
        *("train.epochs=null", "train.steps=3", "train.global_batch=8", "eval.every=1", "run.name=quiet"),
    )
    assert ended.codes == [0, 0], ended.output
    assert "Traceback" not in ended.output
    assert "SemLock" not in ended.output
    assert len(starter.results("quiet").metrics("eval")) == 3

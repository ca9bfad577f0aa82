"""Streams: each rank reads its own share, a kill costs no bit, and what cannot be had with them is told before training."""

from collections import Counter
from itertools import cycle, islice
from pathlib import Path

import pytest

from phalanx.exit.codes import ConfigError
from phalanx.train.checkpoint.stream_position import restore
from phalanx.train.evaluation.batches import Batches, rounds
from phalanx.train.loading.data_hash import hash_data
from phalanx.train.loading.loader import Timeline
from phalanx.train.loading.shard import Span, split
from phalanx.train.loading.streams.parts import Parts
from phalanx.train.loading.streams.reader import Share, StreamPosition, StreamReader
from phalanx.train.loading.streams.stream_dataset import StreamFetcher, StreamShare
from tests.ranks import Starter, until
from tests.runs.data.streams import Counting, Even, Shuffling, Stateful

HERE = "tests.runs.data.streams"
RUN = (
    *("~data.train", "data.augment=null", "data.eval=null", "~model", f"+model._target_={HERE}.Line", "~task"),
    *(f"+task._target_={HERE}.Numbers", "checkpoint.best_metric=loss", "optim=sgd", "optim.lr=0.01"),
    *("schedule=constant", "train.precision=fp64", "train.global_batch=6", "train.epochs=null"),
)
NOISE = f"data.augment={{_target_:{HERE}.Noise}}", f"data.collate={{_target_:{HERE}.columns,_partial_:true}}"


def stream(kind: str, samples: int = 20, key: str = "+data.train", **more: object) -> str:
    return (
        f"{key}={{{','.join([f'_target_:{HERE}.{kind},samples:{samples}', *(f'{k}:{v}' for k, v in more.items())])}}}"
    )


def taken(shares: list[list[int]], steps: int) -> list[float]:
    """The mean of the numbers of each step's samples, where each rank reads its share again and again."""
    ranks = len(shares)
    sizes = [sum(span.stop - span.start for span in split(6, None, rank, ranks)) for rank in range(ranks)]
    own = [islice(cycle(share), None) for share in shares]
    return [sum(sum(islice(each, size)) for each, size in zip(own, sizes, strict=True)) / 6 for _ in range(steps)]


@pytest.mark.parametrize(
    ("kind", "shares"),
    [
        ("Counting", [list(range(20))]),
        ("Counting", [list(range(0, 20, 2)), list(range(1, 20, 2))]),
        ("Stateful", [list(range(rank, 20, 3)) for rank in range(3)]),
        ("ByRank", [[1000 * rank + i for i in range(20 + rank)] for rank in range(3)]),
    ],
)
def test_each_rank_reads_its_own_share_and_begins_it_again_when_it_ends(
    starter: Starter, kind: str, shares: list[list[int]]
) -> None:
    run = starter.train(len(shares), *RUN, stream(kind), "train.steps=16", "log.every=1", name="run")
    lines = run.metrics("train")
    assert [line["number"] for line in lines] == pytest.approx(taken(shares, 16))
    assert [line["epoch"] for line in lines][-1] == (96 // len(shares) - 1) // len(shares[0])
    read_by_all = "gives all ranks the same samples, so each reads them all"
    log = (run.folder / "logs" / "rank_0.log").read_text()
    assert log.count(read_by_all) == (kind == "Counting" and len(shares) > 1)


@pytest.mark.parametrize(
    ("ranks", "train", "more"),
    [
        (1, stream("Counting", 25, noise="true"), ()),
        (2, stream("Remembering", 25), ("data.workers=1",)),
        (2, stream("Shuffling", 25), NOISE),
        (3, stream("Stateful", 25), ("train.micro_batch=1",)),
        (2, stream("Stateful", 25, forgets="true"), ()),
        (2, stream("Sized", 25), ("data.workers=1", "train.steps=null", "train.epochs=36", *NOISE)),
        (3, stream("ByRank", 25), ()),
        (2, stream("Even", 48, num_shards=8), ("data.workers=3",)),
        (2, stream("ByWorker", 50, num_shards=4), ("data.workers=3",)),
    ],
    ids=[
        "counted",
        "remembers its passes",
        "set_epoch",
        "state",
        "a state that forgets",
        "worker",
        "unequal shares",
        "shards",
        "by worker",
    ],
)
def test_a_killed_run_goes_on_with_the_same_bits(
    starter: Starter, ranks: int, train: str, more: tuple[str, ...]
) -> None:
    run = (*RUN, train, "train.steps=150", "checkpoint.every=10", *more)  # no save is at the end of a pass
    undisturbed = starter.train(ranks, *run, "data.workers=0", "checkpoint.every=null", name="undisturbed")
    assert undisturbed.summary["samples"] == 900
    world = starter.start(ranks, *run, "run.name=killed")
    until(lambda: starter.results("killed").reached(30))
    world.kill()
    world.wait()
    others = ["data.workers=2"] if "data.workers=3" in more else []
    killed = starter.train(ranks, *run, *others, name="killed")
    assert killed.events("resume")[0]["step"] >= 20
    assert killed.sha256 == undisturbed.sha256
    assert [line["number"] for line in killed.metrics("train")] == [
        line["number"] for line in undisturbed.metrics("train")
    ]


def test_a_shard_is_read_by_one_part_of_one_rank(starter: Starter) -> None:
    """Step k takes of part k % 4 of each rank, whose shards are those of one data worker of torch's."""
    run = starter.train(2, *RUN, stream("Even", 48, num_shards=8), "train.steps=12", "log.every=1", name="run")
    numbers = []
    for step in range(12):
        shards = [rank + 2 * (step % 4) for rank in range(2)]
        numbers.append([6 * shard + 3 * (step // 4 % 2) + i for shard in shards for i in range(3)])
    assert [line["number"] for line in run.metrics("train")] == pytest.approx([sum(found) / 6 for found in numbers])
    assert [line["epoch"] for line in run.metrics("train")] == [0.0] * 11 + [1.0]


@pytest.mark.parametrize(
    ("train", "says"),
    [
        (stream("Counting"), "of data.workers=2 1 a rank reads Counting, which does not say that it has shards"),
        (stream("Unsplit", num_shards=8), "gives all data workers the same samples"),
        (stream("Even", num_shards=2), None),
    ],
)
def test_workers_that_cannot_read_are_told(starter: Starter, train: str, says: str | None) -> None:
    sets = [
        starter.train(1, *RUN, train, "train.steps=4", f"data.workers={workers}", name=f"with{workers}")
        for workers in (0, 2)
    ]
    assert sets[0].sha256 == sets[1].sha256
    log = (sets[1].folder / "logs" / "rank_0.log").read_text()
    assert log.count("of data.workers=2") == (says is not None)
    assert says is None or says in log


def test_parts_of_another_number_of_shards_are_refused() -> None:
    timeline = Timeline(step=0, position=0, steps=10, end=60, global_batch=6)
    share = StreamShare(Even(48, 4), None, 0, None, timeline, Share(), Parts(4, (0, 1)), keeps_state=False)
    fetcher = StreamFetcher(share, 0, 1, False, batch=6)
    with pytest.raises(ConfigError, match="in 2 parts, and now it is 4"):
        restore(fetcher, {"parts": [{"epoch": 0, "read": 0, "total": 0, "state": None}] * 2}, Path("steps"))


def test_another_number_of_ranks_is_refused_and_nothing_is_lost(starter: Starter) -> None:
    """Before anything is said of the first samples, which are others where a set splits itself."""
    run = (*RUN, stream("Striped"), "checkpoint.every=25", "train.steps=5000", "run.name=run")
    world = starter.start(2, *run)
    until(lambda: starter.results("run").reached(30))
    world.kill()
    world.wait()
    for ranks in (1, 3):
        ended = starter.run(ranks, *run)
        assert ended.codes == [2] * ranks, ended.output
        assert ended.output.count("was saved by 2 ranks") == 1
        assert "phalanx run -n 2" in ended.output
    extended = ("train.extend_from=" + str(starter.results("run").folder), "run.name=longer", "train.steps=9000")
    ended = starter.run(1, *run[:-2], *extended)
    assert ended.codes == [2], ended.output
    assert "was saved by 2 ranks" in ended.output


@pytest.mark.parametrize(
    ("ranks", "overrides", "says"),
    [
        (2, (stream("Counting"), "train.steps=null", "train.epochs=2"), "without a length, so train.epochs=2"),
        (1, (stream("Counting"), "data.drop_last=true"), "data.drop_last=false"),
        (1, (stream("Counting"), "data.sampler={_target_:phalanx.samplers.Repeated,times:2}"), "data.sampler=null"),
        (1, (stream("Counting"), f"data.augment={{_target_:{HERE}.Partners}}"), "`partners` are samples from anywhere"),
        (1, (stream("Counting"), "+data.eval=null", "eval.every_epochs=1"), "eval.every_epochs=null eval.every=100"),
        (2, (stream("Counting", samples=1),), "ended after 1 samples, which leaves none for a rank"),
        (2, (stream("Stateful", samples=1),), "gives no sample on rank 1 of 2"),
        (3, (stream("Two"),), "gives no sample on rank 2 of 3"),
        (
            2,
            (stream("Counting"), stream("ByRank", key="data.eval")),
            "data.eval: ByRank does not give all ranks the same",
        ),
        (1, (stream("Counting"), stream("Counting", samples=0, key="data.eval")), "data.eval: Counting is empty"),
    ],
)
def test_what_a_stream_cannot_give_is_told_once_before_training(
    starter: Starter, ranks: int, overrides: tuple[str, ...], says: str
) -> None:
    ended = starter.run(ranks, *RUN, "train.steps=4", *overrides)
    assert ended.codes == [2] * ranks, ended.output
    assert ended.output.count(says) == 1, ended.output


@pytest.mark.parametrize("kind", ["Counting", "Remembering"])
def test_an_evaluation_counts_each_sample_once_on_any_ranks(starter: Starter, kind: str) -> None:
    """Also where each pass over the set comes in another order."""
    run = (*RUN, stream("Counting"), stream(kind, 23, key="data.eval"), "train.steps=4", "eval.every=2", "eval.batch=4")
    found = [
        starter.train(ranks, *run, f"data.workers={workers}", "optim.lr=1e-30", name=f"on{ranks}").metrics("eval")
        for ranks, workers in ((1, 0), (2, 1), (3, 0))
    ]
    for lines in found:
        assert [line["number"] for line in lines] == [11.0, 11.0]
        assert [line["loss"] for line in lines] == pytest.approx([found[0][0]["loss"]] * 2, rel=1e-12)
    first, second = starter.train(2, *run, "eval.batches=2", name="few").metrics("eval")
    assert first["number"] == second["number"]
    assert kind != "Counting" or first["number"] == 3.5


@pytest.mark.parametrize("more", [(), ("eval.batches=3",)], ids=["all", "limited"])
def test_ranks_share_the_shards_of_an_evaluation(starter: Starter, tmp_path: Path, more: tuple[str, ...]) -> None:
    """To the same bits on any number of ranks and workers; of five shards one is empty."""
    found = []
    for ranks, workers in ((1, 0), (2, 2), (3, 0)):
        notes = tmp_path / str(ranks)
        sharded = stream("Sharded", 102, key="data.eval", num_shards=5, notes=str(notes))
        run = (*RUN, stream("Counting"), sharded, "train.steps=4", "eval.every=2", "eval.batch=4", "optim.lr=1e-30")
        lines = starter.train(ranks, *run, f"data.workers={workers}", *more, name=f"on{ranks}").metrics("eval")
        found.append([(line["number"], line["loss"]) for line in lines])
        made = Counter(int(line.split()[0]) for line in notes.read_text().splitlines())
        assert len(made) == ranks
        # The set is counted once and evaluated twice, and each rank looks at its beginning a few times.
        assert more or max(made.values()) <= 3 * 102 / (1, 2, 2)[ranks - 1] + 85
    assert found == [found[0]] * 3
    assert more or [number for number, _ in found[0]] == [50.5, 50.5]


@pytest.mark.parametrize("ranks", [1, 2, 3, 5])
def test_each_batch_of_an_evaluation_is_one_ranks(ranks: int) -> None:
    for parts in ((10,), (0, 0, 7), (3, 0, 8, 1, 5), rounds((3, 0, 8, 1, 5), 2, 4)):
        batches = Batches(parts, 2)
        for in_order, workers in ((False, 0), (False, 2), (True, 2)):
            shares = [batches.share(rank, ranks, in_order=in_order, workers=workers) for rank in range(ranks)]
            taken = [number for share in shares for number in share]
            assert sorted(taken) == list(range(batches.count))
            assert not in_order or taken == sorted(taken)
            plan = batches.plan(ranks, in_order=in_order, equal=True, workers=workers)
            assert [list(own) for own, _ in plan] == list(map(list, shares))
            assert len({len(numbers) for _, numbers in plan}) == 1
        spans = [batches.span(number) for number in range(batches.count)]
        assert [position for span in spans for position in range(*span)] == list(range(sum(parts)))
    assert rounds((3, 0, 8, 1, 5), 2, 4) == (2, 0, 2, 1, 2)


def test_a_position_is_that_of_the_steps_taken_though_more_was_fetched() -> None:
    """As on a GPU, to which the next step's batch is copied already."""
    timeline = Timeline(step=0, position=0, steps=10, end=60, global_batch=6)
    share = StreamShare(Stateful(20), None, 0, None, timeline, Share(), Parts(), keeps_state=True)
    fetcher = StreamFetcher(share, 0, 1, False, batch=6)
    batches = fetcher.batches(Span(start, start + 3) for start in range(0, 60, 6))
    for _ in range(5):
        next(batches)
    assert [fetcher.positions(taken)[0].total for taken in (12, 18, 24)] == [6, 9, 12]
    fetcher.begin_at(fetcher.positions(18))
    assert next(fetcher.batches([Span(18, 21)]))["number"].tolist() == [9, 10, 11]
    assert fetcher.positions(18)[0].total == 9


def test_a_stream_is_told_which_pass_it_begins() -> None:
    reader = StreamReader(Shuffling(7), Share(), 0, StreamPosition())
    first, second = ([found["number"] for found in reader.samples(7)] for _ in range(2))
    assert first != second
    assert sorted(first) == sorted(second) == list(range(7))


def test_a_hash_of_a_stream_is_of_its_first_samples() -> None:
    assert hash_data(Counting(20)) == hash_data(Counting(16)) != hash_data(Counting(15))
    used = Stateful(20)
    assert hash_data(used) == hash_data(used)

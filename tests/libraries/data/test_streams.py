"""Streams of webdataset and of Hugging Face: split over ranks, each sample once, exact over a kill."""

from pathlib import Path

import pytest

from phalanx.train.loading.streams.parts import shards_of
from tests.libraries.data.streams import rows, write_shards
from tests.ranks import Starter, until
from tests.runs.data.test_streams import RUN

pytestmark = pytest.mark.zoo

HERE = "tests.libraries.data.streams"


def hugging_face(**more: int) -> str:
    return f"+data.train={{{','.join([f'_target_:{HERE}.rows', *(f'{k}:{v}' for k, v in more.items())])}}}"


def webdataset(folder: Path, key: str = "+data.train", **more: object) -> str:
    return f"{key}={{{','.join([f'_target_:{HERE}.tars,folder:{folder}', *(f'{k}:{v}' for k, v in more.items())])}}}"


def killed_and_continued(starter: Starter, ranks: int, *run: str) -> None:
    """The same numbers of samples and the same weights as of a run that was never killed."""
    undisturbed = starter.train(ranks, *run, "data.workers=0", name="undisturbed")
    world = starter.start(ranks, *run, "run.name=killed")
    until(lambda: starter.results("killed").reached(30))
    world.kill()
    world.wait()
    killed = starter.train(ranks, *run, name="killed")
    assert killed.events("resume")[0]["step"] >= 21
    assert killed.sha256 == undisturbed.sha256


@pytest.mark.parametrize(("shards", "buffer", "workers"), [(3, 0, 0), (4, 0, 2), (4, 8, 1)])
def test_hugging_faces_stream_is_split_and_goes_on_after_a_kill(
    starter: Starter, shards: int, buffer: int, workers: int
) -> None:
    """By its state, and where a buffer shuffles, which its state leaves out, by counting."""
    run = (
        *RUN,
        hugging_face(samples=60, shards=shards, buffer=buffer),
        f"data.workers={workers}",
        "checkpoint.every=7",
    )
    short = starter.train(2, *run, "train.steps=10", "log.every=1", name="short")
    seen = [line["number"] for line in short.metrics("train")]
    assert sum(seen) == pytest.approx(10 * 59 / 2)  # each of 60 numbers once
    log = (short.folder / "logs" / "rank_0.log").read_text()
    assert log.count("its state is not used") == bool(buffer)
    killed_and_continued(starter, 2, *run, "train.steps=100")


@pytest.mark.parametrize("buffer", [0, 8])
def test_webdatasets_shards_are_split_as_it_says_and_go_on_after_a_kill(
    starter: Starter, tmp_path: Path, buffer: int
) -> None:
    write_shards(tmp_path / "tars", 4, 15)
    run = (*RUN, webdataset(tmp_path / "tars", shards=4, buffer=buffer), "checkpoint.every=7", "data.workers=2")
    short = starter.train(2, *run, "train.steps=10", "log.every=1", name="short")
    assert sum(line["number"] for line in short.metrics("train")) == pytest.approx(10 * 59 / 2)
    killed_and_continued(starter, 2, *run, "train.steps=100")


def test_ranks_share_the_shards_of_an_evaluation_to_the_same_bits(starter: Starter, tmp_path: Path) -> None:
    write_shards(tmp_path / "tars", 2, 10)
    train = hugging_face(samples=12, shards=1)
    whole = webdataset(tmp_path / "tars", "data.eval", shards=2, splits="false")
    split = webdataset(tmp_path / "tars", "data.eval", shards=2)
    streamed = hugging_face(samples=20, shards=3).replace("data.train", "data.eval")
    for name, held_out in (("whole", whole), ("split", split), ("rows", streamed)):
        found = []
        for ranks in (1, 2):
            workers = f"data.workers={2 * ranks - 2}"
            run = (*RUN, train, held_out, "optim.lr=1e-30", "train.steps=2", "eval.batch=3", workers)
            (line,) = starter.train(ranks, *run, name=f"{name}_on{ranks}").metrics("eval")
            assert line["number"] == 9.5
            found.append(line["loss"])
        assert found[0] == found[1]


def test_a_set_that_takes_so_many_of_a_stream_is_not_cut() -> None:
    """As each part would take as many, or others than the first ones."""
    import webdataset

    made = rows(samples=40, shards=4)
    assert shards_of(made) == 4
    assert [shards_of(found) for found in (made.take(10), made.skip(10), made.take(10).map(str))] == [None] * 3
    tars = webdataset.WebDataset([f"{i}.tar" for i in range(8)], shardshuffle=False)
    assert shards_of(tars.decode()) == 8
    assert [shards_of(found) for found in (tars.slice(3), tars.with_epoch(5))] == [None] * 2

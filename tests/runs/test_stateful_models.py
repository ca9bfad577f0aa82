"""A model whose state lies in more than its weights: the same bits however often it is saved, evaluated or killed."""

import signal
from collections.abc import Iterable

import pytest

from tests.ranks import DDP, Results, Starter
from tests.train.small_runs import planted
from tests.zoo.models import untamed

EVALUATED = ("data.eval={_target_: tests.train.faulty_parts.Planted, samples: 41}", "eval.batch=16")
RUN = (*EVALUATED, "train.steps=9", "train.ema_decay=0.9")
OFTEN = ("eval.every=1", "checkpoint.every=2", "log.every=1")
KILLED = {"kill_at": 6 * 8 + 1, "samples": 96}  # in the seventh step


def of(name: str, **data: object) -> Iterable[str]:
    return untamed(name, planted(**{"samples": 96, **data}))  # type: ignore[arg-type]


def newest(results: Results) -> dict[str, bytes]:
    """The tensors of the last checkpoint, with what each rank alone keeps."""
    folder = max(results.folder.glob("checkpoints/step_*"))
    return {path.name: path.read_bytes() for path in folder.glob("*.safetensors")}


@pytest.mark.parametrize(("ranks", "knobs"), [(1, ()), (2, ()), pytest.param(3, (DDP,), marks=pytest.mark.slow)])
def test_neither_saves_nor_evaluations_nor_kills_change_a_bit(
    starter: Starter, ranks: int, knobs: tuple[str, ...]
) -> None:
    run = (*RUN, *knobs)
    alone = starter.train(ranks, *of("Restarting"), *run, name="alone")
    often = starter.train(ranks, *of("Restarting"), *run, *OFTEN, name="often")
    assert newest(often) == newest(alone)
    killed = (*of("Restarting", **KILLED), *run, "checkpoint.every=3")
    ended = starter.run(ranks, *killed, "run.name=killed")
    assert -signal.SIGKILL in ended.codes, ended.output
    assert newest(starter.train(ranks, *killed, name="killed")) == newest(alone)
    assert often.sha256 == alone.sha256 == starter.results("killed").sha256


def test_on_another_number_of_ranks_rank_0s_buffers_are_taken_and_that_is_said(starter: Starter) -> None:
    run = (*of("Restarting", **KILLED), *RUN, "checkpoint.every=3", "run.name=run")
    assert -signal.SIGKILL in starter.run(2, *run).codes
    ended = starter.run(1, *run)
    assert ended.codes == [0], ended.output
    assert "step_00000006 was saved by 2 ranks, each with buffers of its own" in ended.output


def test_buffers_are_rank_0s_before_each_step_where_that_is_asked_for(starter: Starter) -> None:
    run = (*of("Queue"), *RUN, "parallel.broadcast_buffers=true", "checkpoint.every=3")
    shared = starter.train(2, *run, name="shared")
    own = starter.train(2, *run, "parallel.broadcast_buffers=false", name="own")
    assert shared.sha256 != own.sha256


def test_a_parameter_that_each_rank_initialises_from_its_own_data_ends_the_run_at_its_first_save(
    starter: Starter,
) -> None:
    run = (*of("FromData"), *RUN, "checkpoint.every=2")
    ended = starter.run(2, *run, "run.name=two")
    assert ended.codes == [2, 2], ended.output
    assert ended.output.count("error:") == 1
    assert "After step 2 the parameter scale is not the same on rank 1 as on rank 0" in ended.output
    assert not starter.results("two").folder.joinpath("checkpoints/step_00000002").exists()
    starter.train(1, *run, name="one")


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("+model.frozen=true",), "requires_grad changed in step 4: body.weight began to train, body.bias began"),
        (("+model.frozen=false",), "requires_grad changed in step 4: body.weight was frozen, body.bias was frozen"),
        (("+model.dies=true",), "No gradient reached body.weight, body.bias"),
    ],
    ids=["thawed", "frozen", "left out"],
)
def test_what_trains_is_decided_once_and_a_change_is_said_at_once_on_any_number_of_ranks(
    starter: Starter, ranks: int, options: tuple[str, ...], said: str
) -> None:
    ended = starter.run(ranks, *of("Thawing"), *options, "train.steps=9", "log.every=9", "run.name=run")
    assert ended.codes == [2] * ranks, ended.output
    assert said in ended.output


def test_a_task_that_waits_for_other_ranks_equals_one_rank_or_is_told_what_it_needs(starter: Starter) -> None:
    task = ("~task", "+task._target_=tests.zoo.tasks.Contrasting", "train.precision=fp64", "train.epochs=1")
    run = (*of("Two", samples=16), *task)
    one, two = (starter.train(ranks, *run, name=f"on{ranks}").weights() for ranks in (1, 2))
    assert max(float((one[name] - two[name]).abs().max()) for name in one) < 1e-9
    ended = starter.run(2, *of("Two", samples=17), *task, "run.name=short")
    assert ended.codes == [2, 2], ended.output
    assert "all need equal shares of every batch, and the 1 samples of step 3" in ended.output
    assert "Type train.steps=2" in ended.output


@pytest.mark.parametrize(("ranks", "samples"), [(1, 17), (2, 18)])
def test_a_batch_of_one_that_a_model_cannot_take_is_known_at_the_start(
    starter: Starter, ranks: int, samples: int
) -> None:
    ended = starter.run(ranks, *of("Norms", samples=samples), "train.epochs=1", "run.name=run")
    assert ended.codes == [2] * ranks, ended.output
    assert "cannot train on one sample alone" in ended.output
    assert "Type train.steps=2" in ended.output
    starter.train(ranks, *of("Two", samples=samples), "train.epochs=1", name="takes")


def test_a_broken_evaluation_set_is_found_before_the_first_step(starter: Starter) -> None:
    broken = "data.eval={_target_: tests.zoo.faults.Torn, samples: 9, index: 3}"
    ended = starter.run(1, *of("Two"), broken, "train.steps=4", "run.name=run")
    assert ended.codes != [0], ended.output
    assert not starter.results("run").folder.exists()

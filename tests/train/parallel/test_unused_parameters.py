"""A parameter that no gradient reaches ends the run with its name, and never with torch's words for it."""

import pytest

from tests.ranks import DDP, Ended, Starter
from tests.train.small_runs import planted

MODEL = (
    "~model.inputs",
    "~model.hidden",
    "~model.classes",
    "~model.dropout",
    "model._target_=tests.train.faulty_parts.Dying",
)
RUN = (*(option for option in planted() if not option.startswith("model.")), *MODEL, "train.steps=8")


def named(ended: Ended) -> bool:
    return (
        set(ended.codes) == {2}
        and ended.output.count("error: No gradient reached dead.weight, dead.bias: ") == 1
        and "parallel.find_unused=true" in ended.output
        and "Expected to have finished reduction" not in ended.output
        and "Traceback" not in ended.output
    )


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_parameter_the_loss_never_reaches_is_named_before_the_first_step(starter: Starter, ranks: int) -> None:
    ended = starter.run(ranks, *RUN, "+model.alive=0")
    assert named(ended), ended.output
    assert not (starter.folder / "runs").exists(), "and nothing is left behind"


@pytest.mark.parametrize(("ranks", "knobs"), [(2, ()), (3, (DDP,))])
@pytest.mark.parametrize("every", [1, 4])
def test_one_that_is_left_out_later_is_named_at_that_step(
    starter: Starter, ranks: int, knobs: tuple[str, ...], every: int
) -> None:
    """Whatever comes next: another step, or a word between the ranks for the log."""
    ended = starter.run(ranks, *RUN, *knobs, "+model.alive=3", f"log.every={every}")
    assert named(ended), ended.output


@pytest.mark.parametrize("alive", [0, 3])
@pytest.mark.parametrize(("rank", "knobs"), [(0, (DDP,)), (1, ())])
def test_one_that_is_left_out_on_one_rank_alone_is_named_and_no_rank_waits_for_its_gradient(
    starter: Starter, rank: int, knobs: tuple[str, ...], alive: int
) -> None:
    ended = starter.run(2, *RUN, *knobs, f"+model.alive={alive}", f"+model.rank={rank}", "log.every=1")
    assert named(ended), ended.output


def test_in_one_micro_batch_of_several_it_may_be_left_out(starter: Starter) -> None:
    """The first forward of all is the uncounted one; then two of four micro-batches have it, not the last."""
    ended = starter.run(2, *RUN, "+model.alive=3", "train.micro_batch=1", "parallel.find_unused=true")
    assert ended.codes == [0, 0], ended.output


def test_find_unused_lets_it_be(starter: Starter) -> None:
    ended = starter.run(2, *RUN, "+model.alive=3", "parallel.find_unused=true")
    assert ended.codes == [0, 0], ended.output

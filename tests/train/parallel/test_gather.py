"""phalanx.gather: a loss over the features of all ranks trains as on one, also where a rank has no sample."""

import pytest

from tests.ranks import DDP, Starter
from tests.train.small_runs import planted, undisturbed_and_killed

# 12 batches of 8 and one of a single sample, for which the other ranks have none.
TASK = ("~task", "+task._target_=tests.train.parallel.contrastive_task.Contrastive", "train.precision=fp64")
RUN = (*TASK, "train.epochs=1", "optim=sgd", "optim.lr=0.5", "log.every=1")
EVALUATED = ("data.eval={_target_: tests.train.faulty_parts.Planted, samples: 40}", "eval.batch=10")


def test_a_loss_over_all_ranks_features_is_that_of_one_rank(starter: Starter) -> None:
    words = (*planted(97), *RUN, *EVALUATED)
    runs = [starter.train(ranks, *words, name=f"on{ranks}") for ranks in (1, 2, 3)]
    runs.append(starter.train(2, *words, DDP, name="by"))
    runs.append(starter.train(2, *words, "train.micro_batch=4", name="pieces"))  # one each
    one = runs[0]
    assert [line["seen"] for line in one.metrics("train")] == [8.0] * 12 + [1.0]
    assert [line["seen"] for line in one.metrics("eval")] == [10.0]
    for run in runs[1:]:
        for alone, shared in zip(one.metrics(), run.metrics(), strict=True):
            assert shared["found"] == 1.0
            assert {name: shared[name] for name in ("loss", "seen")} == pytest.approx(
                {name: alone[name] for name in ("loss", "seen")}, rel=1e-9
            )
        for name, weights in one.weights().items():
            assert run.weights()[name].numpy() == pytest.approx(weights.numpy(), rel=1e-9, abs=1e-12)


def test_a_run_that_gathers_continues_to_the_same_bits(starter: Starter) -> None:
    own = (f"+data.train.kill_at={60}", f"+data.train.marker={starter.folder}/killed", "checkpoint.every=3")
    undisturbed, killed = undisturbed_and_killed(starter, 3, *planted(97), *RUN, *own)
    assert undisturbed.sha256 == killed.sha256


@pytest.mark.parametrize("ranks", [1, 2])
def test_accumulation_is_refused_before_training(starter: Starter, ranks: int) -> None:
    ended = starter.run(ranks, *planted(96), *RUN, "train.micro_batch=2", "run.name=r")
    assert set(ended.codes) == {2}
    assert "its share of step 1 in several pieces" in ended.output
    assert "Type train.micro_batch=null" in ended.output
    assert not (starter.folder / "runs/r").exists()

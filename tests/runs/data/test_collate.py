"""A batch is what the user's collate makes of its samples, the same on any number of ranks, and counted as it is."""

import pytest
import torch
from torch.nn import functional as F

from phalanx.train.loading.order import Order
from tests.ranks import Starter
from tests.runs.data.sentences import Bag, Sentences, pad
from tests.runs.test_equivalence import distance
from tests.train.parallel.sharded_strategy import SHARDED

HERE = "tests.runs.data.sentences"
PAD = f"data.collate={{_target_:{HERE}.pad,_partial_:true}}"
STEPS, BATCH, SAMPLES = 8, 8, 50
RUN = (
    *("~model", f"+model._target_={HERE}.Bag", "~task", f"+task._target_={HERE}.Classify", "data.augment=null"),
    *("~data.eval", f"+data.eval={{_target_:{HERE}.Sentences,samples:10,unreadable:2}}", "eval.batch=1"),
    *("~data.train", "optim=sgd", "optim.lr=0.5"),
    *(
        "checkpoint.best_metric=loss",
        "optim.momentum=0",
        "schedule=constant",
        "train.precision=fp64",
        f"train.global_batch={BATCH}",
        f"train.steps={STEPS}",
    ),
)


def sentences(unreadable: int = 0, kind: str = "Sentences") -> str:
    return f"+data.train={{_target_:{HERE}.{kind},samples:{SAMPLES},unreadable:{unreadable}}}"


def trained_by_hand(unreadable: int) -> tuple[dict[str, torch.Tensor], float]:
    """Weights of a plain loop over the samples of each batch that can be read, and the mean loss of the evaluation."""
    torch.manual_seed(0)
    model, data, order = Bag().double(), Sentences(SAMPLES, unreadable), Order(SAMPLES, 0)
    for step in range(STEPS):
        batch = pad([data[int(index)] for index in order.indices(step * BATCH, (step + 1) * BATCH)])
        model.zero_grad()
        F.cross_entropy(model(batch["ids"]), torch.from_numpy(batch["label"])).backward()  # type: ignore[no-untyped-call]
        with torch.no_grad():
            for parameter in model.parameters():
                assert parameter.grad is not None
                parameter.add_(parameter.grad, alpha=-0.5)
    held_out = pad([sample for i in range(10) if (sample := Sentences(10, 2)[i]) is not None])
    loss = F.cross_entropy(model(held_out["ids"]), torch.from_numpy(held_out["label"]))
    return model.state_dict(), float(loss.detach())


@pytest.mark.parametrize("micro_batch", ["null", "1"])
def test_samples_that_a_collate_leaves_out_are_not_counted(starter: Starter, micro_batch: str) -> None:
    """In micro-batches of one sample every second has none left; so has every second batch of the evaluation."""
    weights, loss = trained_by_hand(unreadable=2)
    for ranks, workers in ((1, 0), (2, 2), (3, 0)):
        run = (*RUN, sentences(2), PAD, f"train.micro_batch={micro_batch}", f"data.workers={workers}")
        found = starter.train(ranks, *run, name=f"on{ranks}")
        for name, tensor in weights.items():
            torch.testing.assert_close(found.weights()[name], tensor, rtol=0, atol=1e-12)
        assert found.metrics("eval")[-1]["loss"] == pytest.approx(loss, rel=1e-12)


@pytest.mark.parametrize("micro_batch", ["null", "1"])
def test_a_rank_that_nothing_is_left_for_keeps_nobody_waiting_whose_forward_needs_it(
    starter: Starter, micro_batch: str
) -> None:
    """Weights are gathered in each forward: rank 1 has no sample of the whole evaluation, and of many micro-batches."""
    weights, loss = trained_by_hand(unreadable=2)
    run = (*RUN, sentences(2), PAD, f"train.micro_batch={micro_batch}", SHARDED, "optim.fused=false", "eval.first=true")
    found = starter.train(2, *run, "eval.every=4", name="sharded")
    for name, tensor in weights.items():
        torch.testing.assert_close(found.weights()[name], tensor, rtol=0, atol=1e-9)
    assert found.metrics("eval")[-1]["loss"] == pytest.approx(loss, rel=1e-9)
    assert len(found.metrics("eval")) == 3


@pytest.mark.parametrize("evaluated", [True, False])
def test_a_rank_without_a_sample_is_told_where_the_task_itself_waits(starter: Starter, evaluated: bool) -> None:
    """Both ranks end at once with one message, in training and in an evaluation."""
    given = (sentences(0), "train.micro_batch=null") if evaluated else (sentences(2), "train.micro_batch=1")
    run: tuple[str, ...] = (*RUN, *given, PAD, f"task._target_={HERE}.Waiting", "eval.every=1")
    run += () if evaluated else ("data.eval.unreadable=0",)
    ended = starter.run(2, *run)
    assert ended.codes == [2, 2], ended.output
    whose = "data.eval, from sample 1 on" if evaluated else "step 1"
    assert f"A collate left none of the samples that this rank has of {whose}" in ended.output
    assert ended.output.count("error") == 1


def test_the_data_sets_own_collate_is_taken_and_the_configs_before_it(starter: Starter) -> None:
    plain = starter.train(1, *RUN, sentences(), PAD, name="plain")
    collating = ("data.eval.unreadable=0", f"data.eval._target_={HERE}.Collating")
    own = starter.train(1, *RUN, sentences(kind="Collating"), *collating, name="own")
    assert own.sha256 == plain.sha256
    ended = starter.run(
        1, *RUN, sentences(kind="Collating"), f"data.collate={{_target_:{HERE}.nothing,_partial_:true}}"
    )
    assert ended.codes == [2], ended.output
    assert "data.collate returned nothing for 8 samples: nothing at" in ended.output
    assert "sentences.py:" in ended.output


def test_a_run_of_which_a_collate_leaves_nothing_is_warned_of(starter: Starter) -> None:
    ended = starter.run(1, *RUN, sentences(1), PAD, "run.name=nothing")
    assert ended.codes == [0], ended.output
    assert "WARNING: data.collate left nothing of the first 16 batches of data.train" in ended.output
    assert {line["loss"] for line in starter.results("nothing").metrics("train")} == {None}


def test_samples_of_different_shapes_without_a_collate_are_refused_in_words(starter: Starter) -> None:
    ended = starter.run(2, *RUN, sentences())
    assert ended.codes == [2, 2], ended.output
    assert "Sentences's samples do not stack in ['ids']: sample" in ended.output
    assert "Type data.collate={_target_:mypkg.collate,_partial_:true}" in ended.output
    assert "Traceback" not in ended.output


def test_a_collate_that_raises_is_shown_with_its_line_from_a_worker_too(starter: Starter) -> None:
    ended = starter.run(
        1, *RUN, sentences(), f"data.collate={{_target_:{HERE}.raises,_partial_:true}}", "data.workers=1"
    )
    assert ended.codes == [1], ended.output
    assert "in raises" in ended.output
    assert "stack expects each tensor to be equal size" in ended.output


def test_mixup_takes_its_partners_from_the_whole_batch_on_any_ranks(starter: Starter) -> None:
    run = (
        *(
            "~data.augment",
            f"+data.augment={{_target_:{HERE}.Mixup}}",
            "~task",
            f"+task._target_={HERE}.SoftLabels",
            "model=mlp",
        ),
        *("train.precision=fp64", "train.steps=6", "train.global_batch=16", "checkpoint.best_metric=loss"),
    )
    one, *others = [starter.train(ranks, *run, name=f"on{ranks}") for ranks in (1, 2, 3)]
    for other in others:
        assert distance(one, other) < 1e-12


def test_a_collate_that_draws_by_itself_is_told_of(starter: Starter) -> None:
    """And repeats what it draws: the second start is of the same weights."""
    run = (*RUN, sentences(), f"data.collate={{_target_:{HERE}.masked,_partial_:true}}")
    runs = [starter.train(1, *run, name=name) for name in ("one", "two")]
    assert runs[0].sha256 == runs[1].sha256
    assert "data.collate (masked) draws from a global generator" in starter.run(1, *run, "run.name=three").output

"""At the end of a run the last checkpoints are averaged, and the average is evaluated, saved and loaded."""

import shutil
import signal
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from phalanx.compose.compose import compose
from phalanx.config.average_last import steps_averaged
from phalanx.config.limits import check
from phalanx.exit.codes import ConfigError
from phalanx.train.stopping.average_last import mean
from tests.ranks import Results, Starter, quoted
from tests.train.parallel.flat_strategy import FLAT
from tests.train.parallel.sharded_strategy import SHARDED
from tests.train.stopping import test_stopping
from tests.train.stopping.test_stopping import STOP, task

MLP = test_stopping.RUN
RUN = (
    *(word for word in MLP if not word.startswith("model")),
    *("~model", "+model={_target_:tests.train.batch_norm_model.Normed}"),
)
LAST = (
    "train.average_last=3",
    "checkpoint.every=5",
    "checkpoint.keep=1",
    "train.steps=22",
    "optim.lr=1",
    "eval.every=9",
)
NEVER = task("+task.step=-1", "+task.training=true", "+task.call=1")


def file(results: Results, step: int, name: str = "model") -> dict[str, torch.Tensor]:
    return load_file(results.folder / f"checkpoints/step_{step:08d}/{name}.safetensors")


def by_hand(results: Results, steps: Sequence[int]) -> dict[str, torch.Tensor]:
    """In fp64 by the state_dicts that a run saved which kept them all."""
    saved = [file(results, step) for step in steps]
    counts = {name for name, value in saved[0].items() if not value.is_floating_point()}
    return {
        name: last if name in counts else torch.stack([each[name].double() for each in saved]).mean(0).to(last.dtype)
        for name, last in saved[-1].items()
    }


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("ranks", [1, 2])
def test_the_average_is_that_of_the_saved_checkpoints_wherever_the_run_is_killed(starter: Starter, ranks: int) -> None:
    """Also in the evaluation of the average, and once the checkpoint that holds it is all there is."""
    import phalanx

    kept = starter.train(ranks, *RUN, *LAST, *NEVER, "checkpoint.keep=100", name="kept")
    plain = starter.train(ranks, *RUN, *LAST, *NEVER, name="plain")
    average = by_hand(kept, (15, 20, 22))
    assert same(file(plain, 22, "ema"), average)
    assert not same(average, file(plain, 22))
    assert [event["checkpoints"] for event in plain.events("average")] == [[15, 20, 22]]
    run = phalanx.load(plain.folder, trust=["tests"])
    assert same(run.weights("last"), average)
    assert same({name: value.detach() for name, value in run.model("last").state_dict().items()}, average)
    raw = [word for word in LAST if "average" not in word]
    without = starter.train(ranks, *RUN, *raw, *NEVER, name="without")
    assert without.sha256 == plain.sha256 == kept.sha256
    assert not list(without.folder.glob("checkpoints/*/ema.safetensors"))
    evaluated = [[line["loss"] for line in each.metrics("eval")] for each in (plain, without)]
    assert evaluated[0][:-1] == evaluated[1][:-1]
    assert evaluated[0][-1] != evaluated[1][-1]
    ends = (22, False)  # evaluations there are of the average, then of the best weights
    for at, training, call in ((17, True, 1), (*ends, 1), (*ends, 2)):
        where = task(f"+task.step={at}", f"+task.training={str(training).lower()}", f"+task.call={call}")
        name = f"killed_{at}_{call}"
        (starter.folder / "killed").unlink(missing_ok=True)
        ended = starter.run(ranks, *RUN, *LAST, *where, f"run.name={name}")
        assert -signal.SIGKILL in ended.codes, name
        killed = starter.train(ranks, *RUN, *LAST, *where, name=name)
        assert same(file(killed, 22, "ema"), average), name
        assert (killed.sha256, killed.timeless()) == (plain.sha256, plain.timeless()), name
        assert killed.summary["test"] == plain.summary["test"]
        # What was averaged goes once the average is saved.
        assert {path.name for path in killed.folder.glob("checkpoints/step_*")} == {
            path.name for path in plain.folder.glob("checkpoints/step_*")
        }


def test_a_run_that_ends_early_averages_what_it_has_by_then(starter: Starter) -> None:
    """Its last line is of the weights that were judged; the summary and data.test are of the average."""
    early = ("checkpoint.every=2", "train.average_last=30", "checkpoint.best_metric=null")
    run = (*MLP, *STOP, *early)
    results = starter.train(1, *run, name="r")
    step = results.summary["steps"]
    assert results.summary["ended_by"] == "early_stop"
    steps = [*range(2, step, 2), step]
    assert [event["checkpoints"] for event in results.events("average")] == [steps]
    raw = starter.train(1, *(word for word in run if "average" not in word), "checkpoint.keep=100", name="raw")
    assert (raw.sha256, raw.timeless()[:-1]) == (results.sha256, results.timeless()[:-1])  # the last is of data.test
    assert same(file(results, step, "ema"), by_hand(raw, steps))
    first, second = [event["metrics"] for event in results.events("evaluate") if event["step"] == step][:2]
    assert (first, second) == (raw.summary["eval"], results.summary["eval"])
    assert first != second
    assert results.summary["test"] != raw.summary["test"]
    where = (f"train.extend_from={quoted(str(results.folder))}", "train.average_last=2", "checkpoint.every=3")
    longer = starter.train(1, *MLP, *where, "checkpoint.best_metric=null", name="longer")
    assert longer.sha256 == starter.train(1, *MLP, "checkpoint.best_metric=null", name="whole").sha256
    assert [event["checkpoints"] for event in longer.events("average")] == [[57, 60]]


@pytest.mark.parametrize("strategy", [FLAT, SHARDED])
def test_other_strategies_average_the_same(starter: Starter, strategy: str) -> None:
    run = (*MLP, *LAST, "train.precision=fp64", "~optim.fused")
    ddp, other = (starter.train(2, *run, *more, name=f"r{len(more)}") for more in ((), (strategy,)))
    for name, value in file(ddp, 22, "ema").items():
        torch.testing.assert_close(file(other, 22, "ema")[name], value, rtol=1e-9, atol=1e-9)
    assert not same(file(other, 22, "ema"), file(other, 22))
    assert other.summary["eval"]["loss"] == pytest.approx(ddp.summary["eval"]["loss"], rel=1e-9)


def test_models_that_are_not_tame_hold_their_average_for_a_time_and_train_to_the_same_bits(starter: Starter) -> None:
    run = (*(word for word in RUN if "model" not in word), "~model", "+model={_target_:tests.zoo.models.Menagerie}")
    last = (*LAST, "optim.lr=0.01", "checkpoint.keep=100", "parallel.find_unused=true")
    averaged = starter.train(2, *run, *last, name="averaged")
    assert averaged.sha256 == starter.train(2, *run, *last, "train.average_last=null", name="without").sha256
    average, own = (file(averaged, 22, name) for name in ("ema", "model"))
    assert average.keys() == own.keys()
    assert not same(average, own)
    assert averaged.summary["eval"]["loss"] < 10


def test_a_checkpoint_that_is_lost_is_left_out_and_that_is_said(starter: Starter) -> None:
    where = task("+task.step=21", "+task.training=true", "+task.call=1")
    assert -signal.SIGKILL in starter.run(1, *RUN, *LAST, *where, "run.name=r").codes
    shutil.rmtree(starter.folder / "runs/r/checkpoints/step_00000015")
    ended = starter.run(1, *RUN, *LAST, *where, "run.name=r")
    assert ended.codes == [0], ended.output
    assert "train.average_last leaves out step_00000015: it is not there" in ended.output
    assert [event["checkpoints"] for event in starter.results("r").events("average")] == [[20, 22]]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["train.average_last=1", "checkpoint.every=5"], "train.average_last=1 is out of range"),
        (["train.average_last=3", "checkpoint.every=null"], "checkpoint.every=null. Type checkpoint.every=100"),
        (["train.average_last=3", "checkpoint.every=5", "train.ema_decay=0.9"], "Type train.ema_decay=null"),
        (
            ["train.average_last=3", "checkpoint.every=9", "train.steps=18"],
            "make 2. Type checkpoint.every=6, or train.",
        ),
        (["train.average_last=3", "checkpoint.every=9", "train.steps=2"], "more than 2 steps"),
    ],
)
def test_what_cannot_be_averaged_is_refused_before_training(words: list[str], says: str) -> None:
    with pytest.raises(ConfigError) as refused:
        check(compose(words).config, ranks=1)
    assert says in str(refused.value)


def test_more_checkpoints_than_the_epochs_give_are_refused_before_there_is_a_run(starter: Starter) -> None:
    few = ("train.average_last=3", "checkpoint.every=7", "train.steps=null", "train.epochs=1")  # 12 steps
    ended = starter.run(2, *RUN, *few, "run.name=r")
    assert (ended.codes, ended.output.count("error: ")) == ([2, 2], 1)
    assert "12 steps with checkpoint.every=7 make 2. Type checkpoint.every=4, or train.average_last=2" in ended.output
    assert not (starter.folder / "runs/r").exists()


def test_what_is_averaged_is_in_the_name(tmp_path: Path) -> None:
    def name(*words: str) -> object:
        return compose(words).config.run.name

    last = ("train.average_last=3", "checkpoint.every=5")
    assert name("checkpoint.every=5") == name("checkpoint.every=6") == name()
    assert len({name(), name(*last), name(*last, "checkpoint.every=6"), name(*last, "train.average_last=4")}) == 4
    assert name(*last) == name(*last, "checkpoint.keep=7", "eval.every=3")


def test_the_steps_are_the_newest_multiples_after_the_beginning_and_the_end_itself() -> None:
    for every in range(1, 6):
        for begin in range(9):
            for end in range(begin + 1, 24):
                saved = [step for step in range(begin + 1, end + 1) if step % every == 0 or step == end]
                for last in range(2, 6):
                    assert steps_averaged(last, every, begin, end) == saved[-last:]


def test_what_has_no_mean_is_the_last_and_what_never_changed_stays_to_the_bit() -> None:
    third = torch.tensor([0.1, -0.0], dtype=torch.float64)
    first = {"p": torch.tensor([1.0, 2.0**-24]), "n": torch.tensor(3), "c": torch.tensor([2j]), "grows": torch.ones(2)}
    last = {**first, "p": torch.tensor([2.0, 2.0**-24]), "n": torch.tensor(5), "c": torch.tensor([4.0 + 0j])}
    last |= {"grows": torch.full((3,), 7.0), "new": torch.tensor([9.0]), "same": third}
    found = mean([{**first, "same": third}, {**first, "same": third}], last)
    assert torch.equal(found["p"], torch.tensor([4 / 3, 2.0**-24]))
    assert found["n"].item() == 5
    assert torch.allclose(found["c"], torch.tensor([(4 + 4j) / 3]))
    assert torch.equal(found["grows"], last["grows"])
    assert torch.equal(found["new"], last["new"])
    assert torch.equal(found["same"], third)
    assert {name: value.dtype for name, value in found.items()} == {name: value.dtype for name, value in last.items()}

"""Several evaluation sets by name, a test at the end, and when a run is evaluated."""

import json
from fractions import Fraction

import pytest

from phalanx.config.schema import EvalConfig
from phalanx.run_folder.jsonl import newest_evaluations
from phalanx.train.evaluation.times import EvaluationTimes
from phalanx.train.loading.loader import Timeline
from tests.ranks import Results, Starter
from tests.train.small_runs import killed_once, planted

SET = "{_target_: tests.train.faulty_parts.Planted, samples: %d}"
NAMED = (*planted(96), f"data.eval={{val: {SET % 40}, hard: {SET % 23}}}", f"data.test={SET % 31}", "eval.batch=8")
STEPS = ("train.steps=12", "train.epochs=null", "optim=sgd", "optim.lr=0.5", "checkpoint.every=6")
WATCHED = ("checkpoint.best_metric=hard/loss", "eval.every=3", "eval.first=true")


def numbers(run: Results, *splits: str) -> list[dict[str, object]]:
    """The lines of the splits, without their times."""
    lines = [line for split in splits for line in run.metrics(split)]
    return [{name: value for name, value in line.items() if name not in ("time", "split")} for line in lines]


def test_each_set_has_lines_of_its_own_and_the_same_on_any_number_of_ranks(starter: Starter) -> None:
    exact = ("train.precision=fp64",)
    runs = [starter.train(ranks, *NAMED, *STEPS, *WATCHED, *exact, name=f"on{ranks}") for ranks in (1, 2, 3)]
    one = runs[0]
    assert [line["step"] for line in one.metrics("val")] == [0, 3, 6, 9, 12]
    assert [line["step"] for line in one.metrics("hard")] == [0, 3, 6, 9, 12]
    assert [line["step"] for line in one.metrics("test")] == [12]
    assert one.metrics("eval") == []
    losses = {line["step"]: line["loss"] for line in one.metrics("hard")}
    best = min(losses, key=lambda step: losses[step])
    assert one.summary["best"] == {"step": best, "value": losses[best]}
    newest = newest_evaluations(one.metrics("val") + one.metrics("hard") + one.metrics("test"))
    assert one.summary["eval"] == {
        split: {name: newest[f"{split}/{name}"] for name in ("loss", "accuracy")} for split in ("val", "hard")
    }
    assert one.summary["test"] == {name: newest[f"test/{name}"] for name in ("loss", "accuracy")}
    for run in runs[1:]:
        for alone, shared in zip(numbers(one, "val", "hard", "test"), numbers(run, "val", "hard", "test"), strict=True):
            assert shared == pytest.approx(alone, rel=1e-9)


def test_the_test_set_is_evaluated_with_the_best_weights_average_included(starter: Starter) -> None:
    """A rate that grows spoils the model, so that an early step stays the best; the test set is the one it was best on."""
    spoil = ("optim=sgd", "optim.lr=50", "schedule=constant", "schedule.warmup_steps=200", "train.steps=40")
    words = (
        *planted(96),
        f"data.eval={SET % 40}",
        f"data.test={SET % 40}",
        *spoil,
        "train.epochs=null",
        "eval.every=4",
    )
    untested = [word for word in words if not word.startswith("data.test")]
    for name, more in {"raw": (), "averaged": ("train.ema_decay=0.5",)}.items():
        run = starter.train(2, *words, *more, "checkpoint.best_metric=loss", name=name)
        best = run.summary["best"]
        assert best["step"] < 36
        assert run.summary["test"]["loss"] == best["value"] != run.summary["eval"]["loss"]
        (told,) = [event for event in run.events("evaluate") if event["split"] == "test"]
        assert told["weights_step"] == best["step"]
        plain = starter.train(2, *untested, *more, name=f"plain{name}")
        assert plain.sha256 == run.sha256, "the last weights are those of a run that was never tested"


@pytest.mark.parametrize("kill_at", [0, 60])
def test_no_line_is_repeated_or_missing_after_a_kill(starter: Starter, kill_at: int) -> None:
    """Before the first save, and between two."""
    train = [word for word in NAMED if not word.startswith("+data.train")]
    own = ("+data.train.samples=96", f"+data.train.kill_at={kill_at}", f"+data.train.marker={starter.folder}/killed")
    (starter.folder / "killed").touch()
    undisturbed = starter.train(2, *train, *own, *STEPS, *WATCHED, name="undisturbed")
    (starter.folder / "killed").unlink()
    killed = killed_once(starter, 2, *train, *own, *STEPS, *WATCHED)
    assert numbers(killed, "val", "hard", "test") == numbers(undisturbed, "val", "hard", "test")
    assert killed.summary["best"] == undisturbed.summary["best"]


def test_a_test_that_was_interrupted_is_written_once(starter: Starter) -> None:
    """As where a run is killed between its test and its summary."""
    run = starter.train(1, *NAMED, *STEPS, *WATCHED, name="run")
    before = numbers(run, "val", "hard", "test")
    (run.folder / "summary.json").unlink()
    again = starter.train(1, *NAMED, *STEPS, *WATCHED, name="run")
    assert numbers(again, "val", "hard", "test") == before


def test_a_run_that_extends_another_evaluates_first_and_says_so_once(starter: Starter) -> None:
    words = (*planted(96), f"data.eval={SET % 40}", "train.epochs=null", "schedule=constant", "eval.first=true")
    given = starter.train(1, *words, "train.steps=4", name="given")
    longer = (*words, "train.steps=8", f"train.extend_from='{given.folder}'")
    extended = starter.train(1, *longer, name="extended")
    assert [line["step"] for line in extended.metrics("eval")] == [4, 8]
    assert extended.metrics("eval")[0]["loss"] == given.metrics("eval")[-1]["loss"]
    (extended.folder / "summary.json").unlink()
    for folder in extended.folder.glob("checkpoints/step_*"):
        folder.rename(starter.folder / folder.name)
    events = extended.folder / "events.jsonl"
    events.write_text("".join(line for line in events.read_text().splitlines(True) if '"checkpoint"' not in line))
    again = starter.train(1, *longer, name="extended")
    assert [line["step"] for line in again.metrics("eval")] == [4, 8]


def test_epochs_and_their_fractions_say_when(starter: Starter) -> None:
    every = ("eval.every_epochs=0.5", "train.epochs=2", "eval.batches=2", f"data.eval={SET % 40}", "eval.batch=8")
    run = starter.train(1, *planted(90), *every, name="run")
    assert [line["step"] for line in run.metrics("eval")] == [6, 12, 17, 23], "of 8 samples: past 45, 90, 135, 180"
    whole = starter.train(1, *planted(90), *every[:2], f"data.eval={SET % 16}", "eval.batch=8", name="whole")
    assert numbers(run, "eval") != numbers(whole, "eval")


@pytest.mark.parametrize("every", [0.1, 0.3, 1 / 3, 1.0, 2.5])
def test_every_multiple_is_met_once_whatever_the_batch(every: float) -> None:
    for batch in (1, 3, 7, 30):
        line = Timeline(0, 0, 10**9, 10**9, batch)
        config = EvalConfig(every=None, every_epochs=every, first=False, batch=1, batches=None, predictions=0)
        times = EvaluationTimes(config, line, 1000)
        met = [step for step in range(1, 10000 // batch + 1) if times.after(step, step * batch, batch)]
        exact = Fraction(str(every)) * 1000
        assert met == [-(-n * exact // batch) for n in range(1, int(met[-1] * batch // exact) + 1)]


def test_a_limit_of_batches_leaves_the_test_set_whole(starter: Starter) -> None:
    limited = starter.train(2, *NAMED, *STEPS, "eval.batches=1", name="limited")
    whole = starter.train(2, *NAMED, *STEPS, name="whole")
    first = "{_target_: torch.utils.data.Subset, dataset: %s, indices: [0,1,2,3,4,5,6,7]}"
    few = (*planted(96), f"data.eval={{val: {first % (SET % 40)}, hard: {first % (SET % 23)}}}", "eval.batch=3")
    alike = starter.train(2, *few, *STEPS, name="alike")
    assert limited.sha256 == whole.sha256
    assert numbers(limited, "test") == numbers(whole, "test")
    for split in ("val", "hard"):
        assert numbers(limited, split) != numbers(whole, split)
        assert limited.summary["eval"][split] == pytest.approx(alike.summary["eval"][split], rel=1e-6)


def test_a_manifest_holds_what_was_found_on_each_set(starter: Starter) -> None:
    run = starter.train(1, *NAMED, *STEPS, *WATCHED, name="run")
    manifest = json.loads((run.folder / "checkpoints/step_00000012/manifest.json").read_text())
    assert manifest["metrics"] == run.summary["eval"]


def test_an_evaluation_before_step_1_is_taken_once_by_what_it_steers(starter: Starter) -> None:
    """It is saved as the best so far, and a run that was killed then continues from there."""
    steered = ("schedule=plateau", "schedule.metric=val/loss", "schedule.patience=1", "schedule.min_delta=1.0")
    train = [word for word in NAMED if not word.startswith(("+data.train", "schedule"))]
    own = ("+data.train.samples=96", "+data.train.kill_at=17", f"+data.train.marker={starter.folder}/killed")
    run = (*train, *own, *steered, *STEPS[:4], *WATCHED, "log.every=1")
    (starter.folder / "killed").touch()
    undisturbed = starter.train(2, *run, name="undisturbed")
    (starter.folder / "killed").unlink()
    killed = killed_once(starter, 2, *run)
    assert [event["step"] for event in killed.events("resume")] == [0]
    rates = [line["lr"] for line in undisturbed.metrics("train")]
    assert rates[-1] < rates[0], "the plateau was met"
    assert [line["lr"] for line in killed.metrics("train")] == rates
    assert killed.sha256 == undisturbed.sha256
    assert numbers(killed, "val", "hard", "test") == numbers(undisturbed, "val", "hard", "test")

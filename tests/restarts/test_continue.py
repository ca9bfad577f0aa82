"""The same command continues the same run: finished, damaged, begun from other weights, or trained longer."""

import json
import os
import shutil
from hashlib import sha256
from pathlib import Path
from pickle import dumps

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.ranks import Nursery, Results, Starter, quoted

pytestmark = pytest.mark.xdist_group("continue")  # they look at copies of one run

RUN = ("model=mlp", "model.hidden=[8]", "train.steps=12", "log.every=5", "checkpoint.every=3", "checkpoint.keep=3")
SGD = ("optim=sgd", "optim.lr=0.05", "train.ema_decay=0.9", "schedule=constant", "checkpoint.best_metric=null")


@pytest.fixture(scope="module")
def finished(nursery: Nursery, tmp_path_factory: pytest.TempPathFactory) -> Results:
    return Starter(nursery, tmp_path_factory.mktemp("finished")).train(1, *RUN, name="r")


@pytest.fixture
def results(starter: Starter, finished: Results) -> Results:
    """A copy of a finished run of one rank, which the name r continues."""
    return Results(shutil.copytree(finished.folder, starter.folder / "runs" / "r"))


def contents(folder: Path) -> dict[str, bytes]:
    """Everything in a run's folder but the lock, which names the last process that looked in."""
    return {
        str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file() and path.name != ".lock"
    }


def error(starter: Starter, *overrides: str, ranks: int = 1) -> str:
    """The one message of a start that must be refused."""
    ended = starter.run(ranks, *RUN, *overrides)
    assert ended.codes == [2] * ranks, ended.output
    assert "Traceback" not in ended.output
    assert ended.output.count("error: ") == 1
    return ended.output


def unfinish(results: Results) -> None:
    """As if the run had been killed between its last checkpoint and its summary."""
    (results.folder / "summary.json").unlink()


@pytest.mark.parametrize("ranks", [1, 2])
def test_finished_run_says_so_and_changes_nothing(starter: Starter, results: Results, ranks: int) -> None:
    before = contents(results.folder)
    ended = starter.run(ranks, *RUN, "run.name=r")
    assert ended.codes == [0] * ranks
    assert ended.output.count("finished already: 12 steps") == 1
    assert results.sha256 in ended.output
    assert contents(results.folder) == before


def test_finished_run_with_more_steps_is_told_how_to_go_on(starter: Starter, results: Results) -> None:
    before = contents(results.folder)
    message = error(starter, "run.name=r", "train.steps=24")
    assert "train.steps: 12 -> 24" in message
    assert f"train.extend_from={results.folder}" in message
    assert "extend_from" not in error(starter, "run.name=r", "seed=1")
    assert contents(results.folder) == before


def manifest_keeps_the_contract(results: Results) -> None:
    folder = results.folder / "checkpoints/step_00000012"
    manifest = json.loads((folder / "manifest.json").read_text())
    assert (manifest["format"], manifest["step"], manifest["world_size"]) == (1, 12, 2)
    assert manifest["weights_sha256"] == results.sha256
    assert len(manifest["config_digest"]) == 64
    files = {path.name for path in folder.iterdir()} - {"manifest.json"}
    assert set(manifest["files"]) == files == {"model.safetensors", "state.pt", "progress.json"}


def test_run_without_its_summary_is_finished_from_its_last_checkpoint(starter: Starter) -> None:
    results = starter.train(2, *RUN, name="r")
    manifest_keeps_the_contract(results)
    sha, lines = results.sha256, results.timeless()
    (results.folder / "summary.json").write_text('{"steps": ')
    ended = starter.run(2, *RUN, "run.name=r")
    assert ended.codes == [0, 0]
    assert "summary.json is damaged" in ended.output
    assert (results.sha256, results.timeless()) == (sha, lines)


def test_damaged_newest_checkpoint_is_told_and_its_steps_are_done_again(starter: Starter) -> None:
    results = starter.train(2, *RUN, *SGD, name="r")
    sha, lines = results.sha256, results.timeless()
    unfinish(results)
    (results.folder / "checkpoints/step_00000012/state.pt").write_bytes(b"")
    ended = starter.run(2, *RUN, *SGD, "run.name=r")
    assert ended.codes == [0, 0], ended.output
    assert ended.output.count("step_00000012 is damaged (state.pt is not what was written) and set aside") == 1
    assert "continuing from step_00000009" in ended.output
    assert [event["step"] for event in results.events("resume")] == [9]
    assert (results.sha256, results.timeless()) == (sha, lines)
    assert (results.folder / "checkpoints/step_00000012.damaged").is_dir()


def test_run_whose_checkpoints_are_all_damaged_says_so_and_begins_anew_when_it_is_told_to(
    starter: Starter, results: Results
) -> None:
    sha, lines = results.sha256, results.timeless()
    unfinish(results)
    for state in results.folder.glob("checkpoints/step_*/model.safetensors"):
        state.unlink()
    before = contents(results.folder)
    message = error(starter, "run.name=r")
    assert message.count("model.safetensors is missing") == 3
    assert "run.fresh=true" in message
    told = ("lease", "logs")  # who looked in
    after = contents(results.folder)
    assert {path for path in before if before[path] != after.get(path) and Path(path).parent.name not in told} == set()
    assert starter.run(1, *RUN, "run.name=r", "run.fresh=true").codes == [0]
    assert (results.sha256, results.timeless()) == (sha, lines)


class Bomb:
    def __reduce__(self) -> tuple[object, tuple[str, int]]:
        return os.mkdir, ("exploded", 0o755)


def test_checkpoint_is_never_unpickled(starter: Starter, results: Results) -> None:
    unfinish(results)
    newest = results.folder / "checkpoints/step_00000012"
    torch.save({"update": Bomb(), "generators": []}, newest / "state.pt")
    manifest = json.loads((newest / "manifest.json").read_text())
    del manifest["manifest_sha256"]  # as an earlier version wrote it
    content = (newest / "state.pt").read_bytes()
    manifest["files"]["state.pt"] = {"size": len(content), "sha256": sha256(content).hexdigest()}
    (newest / "manifest.json").write_text(json.dumps(manifest))
    assert "something else than tensors and plain values" in error(starter, "run.name=r")
    (newest / "state.pt").write_bytes(content := dumps(Bomb()))
    manifest["files"]["state.pt"] = {"size": len(content), "sha256": sha256(content).hexdigest()}
    (newest / "manifest.json").write_text(json.dumps(manifest))
    assert "something else than tensors and plain values" in error(starter, "run.name=r")
    assert not (starter.folder / "exploded").exists()


def test_best_checkpoint_survives_beside_the_newest(starter: Starter) -> None:
    """A rate that grows spoils the model, so that an early evaluation stays the best."""
    spoil = ("optim=sgd", "optim.lr=50", "schedule.warmup_steps=200", "schedule=constant", "train.steps=40")
    for mode, metric in (("max", "accuracy"), ("min", "loss")):
        best = (f"checkpoint.best_metric={metric}", f"checkpoint.best_mode={mode}", "eval.every=4", "checkpoint.keep=2")
        results = starter.train(1, *RUN, *spoil, *best, name=mode)
        values = {line["step"]: line[metric] for line in results.metrics("eval")}
        choose = max if mode == "max" else min
        step = choose(values, key=lambda step: values[step])
        assert results.summary["best"] == {"step": step, "value": values[step]}
        assert step < 36
        kept = sorted(path.name for path in results.folder.glob("checkpoints/step_*"))
        assert kept == [f"step_{s:08d}" for s in sorted({step, 39, 40})]


def test_run_begins_with_the_weights_that_init_from_names(starter: Starter) -> None:
    given = starter.train(2, *RUN, *SGD, "eval.every=4", "checkpoint.best_metric=accuracy", name="given")
    newest = given.folder / "checkpoints/step_00000012"
    best = given.folder / f"checkpoints/step_{given.summary['best']['step']:08d}"
    shutil.copy(newest / "model.safetensors", starter.folder / "w 1.safetensors")
    cases = {
        "run": (given.folder, best / "ema.safetensors"),
        "checkpoint": (newest, newest / "ema.safetensors"),
        "file": (starter.folder / "w 1.safetensors", newest / "model.safetensors"),
    }
    for name, (named, expected) in cases.items():
        # With a rate that moves nothing the run ends with what it began with.
        still = ("optim=sgd", "optim.lr=0", f"train.init_from={quoted(str(named))}")
        results = starter.train(1, *RUN, *still, name=name)
        began, ended = load_file(expected), results.weights()
        assert all(torch.equal(began[key], ended[key]) for key in began), name


def test_init_from_is_part_of_what_a_run_is(starter: Starter, results: Results) -> None:
    begins = f"train.init_from={quoted(str(results.folder))}"
    begun = starter.train(1, *RUN, begins, name="begun")
    assert "train.init_from" in error(starter, "run.name=begun")
    unfinish(begun)
    starter.train(1, *RUN, begins, name="begun")
    other = results.weights()
    save_file({name: tensor + 1 for name, tensor in other.items()}, starter.folder / "w.safetensors")
    file = f"train.init_from={quoted(str(starter.folder / 'w.safetensors'))}"
    starter.train(1, *RUN, file, name="file")
    save_file(other, starter.folder / "w.safetensors")
    assert "what train.init_from holds" in error(starter, file, "run.name=file")


def test_every_tensor_that_init_from_lacks_is_named(starter: Starter, results: Results) -> None:
    begins = f"train.init_from={quoted(str(results.folder))}"
    message = error(starter, begins, "run.name=new", "model.hidden=[9,4]", ranks=2)
    for part in ("(8, 784) there and (9, 784) in the model", "is missing there"):
        assert part in message
    assert not (starter.folder / "runs/new").exists()
    assert "nowhere is not there" in error(starter, "run.name=new", "train.init_from=nowhere")


@pytest.mark.parametrize("ranks", [1, 3])
def test_finished_run_trained_longer_is_as_if_it_had_never_ended(starter: Starter, ranks: int) -> None:
    run = (*RUN, *SGD, "model.dropout=0.2", "train.micro_batch=16", "log.every=4", "eval.every=6")
    whole = starter.train(ranks, *run, "train.steps=20", name="whole")
    first = starter.train(ranks, *run, "train.steps=8", name="first")
    before = contents(first.folder)
    extend = f"train.extend_from={quoted(str(first.folder))}"
    longer = starter.train(ranks, *run, "train.steps=20", extend, name="longer")
    assert longer.sha256 == whole.sha256
    assert longer.timeless() == [line for line in whole.timeless() if line["step"] > 8]
    assert longer.events("start")[0]["step"] == 8
    averages = [run.folder / "checkpoints/step_00000020/ema.safetensors" for run in (whole, longer)]
    assert averages[0].read_bytes() == averages[1].read_bytes()
    assert contents(first.folder) == before
    if ranks == 1:
        again = (*run, "train.steps=20", extend, "run.fresh=true")
        assert starter.train(ranks, *again, name="longer").sha256 == whole.sha256


def test_a_run_is_extended_under_its_own_config_but_for_length_rate_schedule_and_batch(
    starter: Starter, results: Results
) -> None:
    extend = (f"train.extend_from={quoted(str(results.folder))}", "run.name=longer", "train.steps=24")
    message = error(starter, *extend, "optim.lr=0.5", "train.global_batch=32", "seed=1", "+optim.amsgrad=true", ranks=2)
    assert "rate, schedule and batch may change: optim.amsgrad: (absent) -> True; seed: 0 -> 1. Drop" in message
    assert "12 steps" in error(starter, *extend, "train.steps=12")
    nothing = quoted(str(results.folder / "checkpoints/step_00000011"))
    assert "step_00000011 is not there" in error(starter, "run.name=longer", f"train.extend_from={nothing}")
    assert not (starter.folder / "runs/longer").exists()


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_run_goes_on_with_another_rate_and_batch_and_the_state_of_its_optimizer(starter: Starter, ranks: int) -> None:
    """As torch's own optimizer does, whose state is loaded and whose rate and weight decay are then set."""
    run = (
        *(
            "model=mlp",
            "model.hidden=[8]",
            "optim=adamw",
            "train.precision=fp64",
            "schedule=cosine",
            "data.augment=null",
        ),
        *("checkpoint.best_metric=null", "optim.weight_decay=0.1"),
    )
    first = starter.train(ranks, *run, "train.steps=8", name="first")
    extend = f"train.extend_from={quoted(str(first.folder))}"
    others = ("optim.lr=0.01", "optim.weight_decay=0.2", "train.global_batch=48", "schedule=constant")
    longer = starter.train(ranks, *run, *others, extend, "train.steps=9", name="longer")
    assert longer.summary["samples"] == 8 * 64 + 48
    (start,) = longer.events("start")
    assert start["lr"]["after"] == 0.01
    assert start["lr"]["before"] == first.metrics("train")[-1]["lr"] < 0.0001
    before = torch.load(first.folder / "checkpoints/step_00000008/state.pt", weights_only=True)["update"]["optimizer"]
    after = torch.load(longer.folder / "checkpoints/step_00000009/state.pt", weights_only=True)["update"]["optimizer"]
    assert {group["weight_decay"] for group in before["param_groups"]} == {0.1, 0.0}
    assert {group["weight_decay"] for group in after["param_groups"]} == {0.2, 0.0}
    names = ["layers.0.weight", "layers.3.weight"]  # those of the group that decays
    for index, name in enumerate(names):
        was, now = (found["state"][index] for found in (before, after))
        assert now["step"] == was["step"] + 1 == 9
        gradient = (now["exp_avg"] - 0.9 * was["exp_avg"]) / 0.1
        assert torch.allclose(now["exp_avg_sq"], 0.999 * was["exp_avg_sq"] + 0.001 * gradient**2, rtol=1e-9)
        moved = now["exp_avg"] / (1 - 0.9**9) / ((now["exp_avg_sq"] / (1 - 0.999**9)).sqrt() + 1e-8)
        expected = first.weights()[name] * (1 - 0.01 * 0.2) - 0.01 * moved
        assert torch.allclose(longer.weights()[name], expected, rtol=1e-9, atol=1e-12), name


def test_a_rate_that_jumps_where_a_run_is_extended_is_told_with_what_to_type(starter: Starter) -> None:
    run = (*RUN, "optim.lr=0.01", "schedule=cosine", "checkpoint.best_metric=null")
    first = starter.train(1, *run, name="first")
    extend = (f"train.extend_from={quoted(str(first.folder))}", "train.steps=24")
    ended = starter.run(2, *run, *extend, "run.name=longer")
    (told,) = [line for line in ended.output.splitlines() if line.startswith("WARNING: lr:")]
    rate = starter.results("longer").events("start")[0]["lr"]
    assert f"lr: {rate['before']:.3g} before, in the last step" in told
    assert f"{rate['after']:.3g} after" in told
    assert rate["after"] > 10 * rate["before"]
    typed, _, constant = told.partition("To go on at the rate it had type ")[2].partition(" for this schedule, or ")
    for words in ([typed], constant.split()):
        ended = starter.run(1, *run, *extend, *words, "run.name=smooth", "run.fresh=true")
        assert ended.codes == [0], ended.output
        assert "WARNING: lr:" not in ended.output
        smooth = starter.results("smooth").events("start")[0]["lr"]
        assert smooth["after"] == pytest.approx(rate["before"], rel=1e-5)


@pytest.mark.parametrize("ranks", [1, 2])
def test_an_unfinished_run_is_extended_from_where_it_stood_then(starter: Starter, ranks: int) -> None:
    """It goes on afterwards, and its checkpoint is gone: what extends it has begun where it did."""
    run = (*RUN, *SGD, "checkpoint.keep=1", "train.steps=20")
    whole = starter.train(ranks, *run, name="whole")
    first = starter.train(ranks, *(*run, "train.steps=8"), name="first")
    unfinish(first)  # as if it were the run of 20 steps and killed at step 8
    resolved = first.folder / "resolved.yaml"
    resolved.write_text(resolved.read_text().replace("steps: 8\n", "steps: 20\n"))
    extend = f"train.extend_from={quoted(str(first.folder))}"
    longer = starter.train(ranks, *run, extend, name="longer")
    assert longer.sha256 == whole.sha256
    assert longer.events("start")[0]["step"] == 8
    unfinish(longer)
    shutil.rmtree(longer.folder / "checkpoints/step_00000020")
    shutil.copytree(first.folder, starter.folder / "runs" / "aside")
    assert starter.train(ranks, *run, "run.accept=changed", name="first").sha256 == whole.sha256
    assert not (first.folder / "checkpoints/step_00000008").exists()
    nothing = starter.run(ranks, *run, extend, "run.name=longer")
    assert nothing.codes == [2] * ranks
    assert "though step 20 was saved" in nothing.output
    (longer.folder / "events.jsonl").write_text("")
    nothing = starter.run(ranks, *run, extend, "run.name=longer")
    assert nothing.codes == [2] * ranks
    assert "step_00000008 is not there" in nothing.output
    assert "Type run.fresh=true to begin anew from where it is now" in nothing.output
    shutil.copytree(starter.folder / "runs/aside/checkpoints/step_00000008", first.folder / "checkpoints/step_00000008")
    assert starter.train(ranks, *run, extend, name="longer").sha256 == whole.sha256
    middle = f"train.extend_from={quoted(str(first.folder / 'checkpoints/step_00000008'))}"
    assert starter.train(ranks, *run, middle, name="middle").sha256 == whole.sha256


def test_trained_longer_with_another_schedule_and_in_epochs(starter: Starter) -> None:
    run = ("model=mlp", "model.hidden=[8]")
    first = starter.train(1, *run, "train.epochs=0.5", "schedule=constant", name="first")
    extend = f"train.extend_from={quoted(str(first.folder))}"
    longer = starter.train(2, *run, "train.epochs=1", "schedule=linear", extend, name="longer")
    assert longer.summary["samples"] == 1438
    again = starter.train(1, *run, "train.epochs=1.5", extend.replace("first", "longer"), name="again")
    assert again.summary["samples"] == 2157

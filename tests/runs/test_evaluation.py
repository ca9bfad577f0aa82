"""An evaluation takes every sample once, on any number of ranks."""

from collections.abc import Callable
from functools import cache

import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional as F

from phalanx.train.data.digits import Digits
from phalanx.train.loading.fetch import PositionDataset
from phalanx.train.loading.order import SequentialOrder
from phalanx.train.loading.rng import seed_all
from phalanx.train.loading.shard import Span
from phalanx.train.models.mlp import MLP
from tests.ranks import ROOT, Nursery, Results, Starter
from tests.runs.random_user_code import Drawn, Normed, overrides
from tests.train.faulty_parts import Planted
from tests.train.small_runs import planted

Evaluate = Callable[[int, int], Results]


@pytest.fixture(scope="module")
def evaluate(nursery: Nursery, tmp_path_factory: pytest.TempPathFactory) -> Evaluate:
    """Evaluates the same weights of digits on so many ranks in batches of so many of its 359 samples, once each."""
    starter = Starter(nursery, tmp_path_factory.mktemp("digits"))
    scored = ("~task", "+task={_target_: tests.zoo.metrics.Scored, classes: 10, label_smoothing: 0.0}", "model=mlp")
    exact = ("train.precision=fp64", "checkpoint.best_metric=f1/3")
    weights = starter.train(1, *scored, *exact, "train.steps=9", name="weights").folder
    # A rate of 1e-300 leaves them as they were.
    same = (f"train.init_from='{weights}'", "optim.lr=1e-300", "train.steps=1", *scored, *exact)

    @cache
    def on(ranks: int, batch: int) -> Results:
        return starter.train(ranks, *same, f"eval.batch={batch}", name=f"on{ranks}by{batch}")

    return on


DIGITS = pytest.mark.xdist_group("digits")  # they look at the same runs


@DIGITS
@pytest.mark.parametrize("numbers", [(1, 2, 3), pytest.param((1, 5), marks=pytest.mark.slow)])
def test_metrics_have_the_same_bits_on_any_number_of_ranks(evaluate: Evaluate, numbers: tuple[int, ...]) -> None:
    found = [{**evaluate(ranks, 50).metrics("eval")[-1], "time": 0} for ranks in numbers]
    assert found[0].keys() > {"loss", "accuracy"}
    assert all(metrics == found[0] for metrics in found)


@DIGITS
@pytest.mark.parametrize("batch", [1000, 7])
def test_every_sample_counts_once_whatever_the_batch(evaluate: Evaluate, batch: int) -> None:
    correct = evaluate(3, batch).metrics("eval")[-1]["accuracy"] * 359
    assert correct == pytest.approx(round(correct), abs=1e-9)


@pytest.mark.parametrize(("ranks", "workers"), [(1, 0), (2, 0), pytest.param(3, 1, marks=pytest.mark.slow)])
def test_no_sample_is_left_out_and_none_counts_twice(starter: Starter, ranks: int, workers: int) -> None:
    """23 samples in batches of 4. A task's ratios may count in what they like: here one a batch."""
    census = (
        *(word for word in overrides() if not word.startswith("task.")),
        "~task",
        "+task._target_=tests.runs.random_user_code.Census",
        "data.eval._target_=tests.runs.random_user_code.Numbered",
        "~data.eval.half",
        "checkpoint.best_metric=loss",
    )
    run = (*census, "train.steps=1", "eval.batch=4", f"data.workers={workers}")
    found = starter.train(ranks, *run, name="run").metrics("eval")[-1]
    assert found["mean"] == 11
    assert found["first"] == 253 / 6
    assert found["second"] == sum(i * i for i in range(23)) / 6
    assert found["batches"] == 1


def test_running_statistics_are_rank_0s_on_all_ranks(starter: Starter) -> None:
    """Each rank has its own; a checkpoint and an evaluation on all ranks have the same."""
    run = starter.train(2, *overrides("Normed"), "train.precision=fp64", "train.steps=7", "eval.batch=9", name="run")
    model = Normed().double().eval()
    model.load_state_dict(load_file(max(run.folder.glob("checkpoints/step_*[0-9]/model.safetensors"))))
    seed_all(0, torch.device("cpu"))
    inputs, labels = PositionDataset(Drawn(half=1), SequentialOrder(), None, 0).__getitems__(Span(0, 100))
    with torch.no_grad():
        loss = F.cross_entropy(model(inputs.double()), labels)
    assert run.metrics("eval")[-1]["loss"] == pytest.approx(float(loss), rel=1e-12)


@DIGITS
def test_metrics_of_digits_are_scikit_learns_on_any_number_of_ranks_and_any_batch(evaluate: Evaluate) -> None:
    """Macro-F1 from counts and areas under curves from all scores, to the last digit; also where a rank has no batch."""
    from sklearn.metrics import f1_score, roc_auc_score  # a second, which each process that collects tests would take

    runs = [evaluate(ranks, batch) for ranks, batch in ((1, 359), (1, 50), (2, 50), (3, 7), (3, 1000))]
    found = [
        {name: value for name, value in run.metrics("eval")[-1].items() if name.startswith(("f1", "auc"))}
        for run in runs
    ]
    assert all(metrics == found[0] for metrics in found)
    model = MLP(28 * 28, [32], 10, 0.0).double().eval()
    model.load_state_dict(load_file(max(runs[0].folder.glob("checkpoints/step_*[0-9]/model.safetensors"))))
    inputs, labels = PositionDataset(Digits("held_out"), SequentialOrder(), None, 0).__getitems__(Span(0, 359))
    with torch.no_grad():
        scores = model(inputs.double()).numpy()
    predicted = scores.argmax(1)
    expected = {f"f1/{kind}": score for kind, score in enumerate(f1_score(labels, predicted, average=None))}
    expected |= {f"auc/{kind}": roc_auc_score(labels == kind, scores[:, kind]) for kind in range(10)}
    assert found[0] == {"f1/macro": f1_score(labels, predicted, average="macro"), **expected}
    assert 0.3 < found[0]["f1/macro"] < 0.99, "there is something to be measured"
    assert runs[3].summary["best"]["value"] == expected["f1/3"] == runs[3].summary["eval"]["f1/3"]


def test_the_metric_of_the_readme_is_scikit_learns_too(starter: Starter) -> None:
    """As it is typed there, beside one that the tests have."""
    path = ROOT / "docs" / "own_package" / "mypkg" / "scores.py"
    shown = "".join(f"    {line}\n" if line else "\n" for line in path.read_text().splitlines())
    assert shown.strip("\n") in (ROOT / "README.md").read_text()
    run = ("model=mlp", "train.steps=9", "checkpoint.best_metric=f1/macro", "eval.batch=50")
    environ = {"PYTHONPATH": str(path.parents[1])}
    own = starter.train(2, "task._target_=mypkg.scores.Scored", *run, name="own", environ=environ).summary
    ours = starter.train(2, "task._target_=tests.zoo.metrics.Scored", *run, name="ours").summary
    assert own["weights_sha256"] == ours["weights_sha256"]
    assert own["eval"]["f1/macro"] == pytest.approx(ours["eval"]["f1/macro"], rel=1e-15)
    alike = own["eval"].keys() - {"f1/macro"}
    assert len(alike) == 2 + 10
    assert {name: ours["eval"][name] for name in alike} == {name: own["eval"][name] for name in alike}


def test_a_metric_finds_all_samples_in_their_order(starter: Starter) -> None:
    """23 samples in batches of 4: whatever a metric keeps, the merge of ranks has it in the order of the samples."""
    counting = (
        *(word for word in overrides() if not word.startswith("task.")),
        *(
            "~task",
            "+task._target_=tests.zoo.metrics.Ordered",
            "data.eval._target_=tests.runs.random_user_code.Numbered",
        ),
        *("~data.eval.half", "checkpoint.best_metric=loss", "train.steps=1"),
    )
    for ranks, batch in ((1, 4), (2, 4), (3, 4), (3, 23)):
        run = starter.train(ranks, *counting, f"eval.batch={batch}", name=f"on{ranks}by{batch}")
        found = run.metrics("eval")[-1]
        assert (found["numbers/in_order"], found["numbers/count"]) == (1, 23)


def test_what_is_not_defined_for_the_samples_is_null_and_never_the_best(starter: Starter) -> None:
    """Six samples hold not all of ten classes, and three ranks have no more than two batches of them."""
    few = (*planted(), "data.eval={_target_: tests.train.faulty_parts.Planted, samples: 6}", "eval.batch=3")
    task = ("~task", "+task={_target_: tests.zoo.metrics.Scored, classes: 10, label_smoothing: 0.0}", "train.steps=2")
    labels = Planted(6).labels
    missing = next(kind for kind in range(10) if kind not in labels)
    best = f"checkpoint.best_metric=auc/{missing}"
    runs = [starter.train(ranks, *few, *task, best, name=f"on{ranks}") for ranks in (1, 3)]
    one, three = ({**run.metrics("eval")[-1], "time": 0} for run in runs)
    assert three.pop("loss") == pytest.approx(one.pop("loss"), rel=1e-6), (
        "the weights, whose last bits hang on the ranks"
    )
    assert one == three
    assert {kind for kind in range(10) if one[f"auc/{kind}"] is None} == set(range(10)) - set(labels.tolist())
    assert runs[1].summary["best"]["step"] is None

"""What a task answers reaches the lines of metrics, each split with its own, or is refused in words before training."""

from collections.abc import Mapping

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from phalanx.common.meter import Spent, rates
from phalanx.exit.codes import ConfigError
from phalanx.train.engine.loop.metric_window import _Chunk
from phalanx.train.engine.step import StepResult
from phalanx.train.evaluation.evaluate import _scalar
from phalanx.train.loading.batch import Batch
from phalanx.train.tasks.answer import RESERVED, check_count, checked
from phalanx.train.tasks.mean_loss import warn_of_mean
from phalanx.train.tasks.task import Ratio, Task
from tests.ranks import Starter
from tests.train.small_runs import planted
from tests.zoo.tasks import WRONG, Plain, Wrong

BATCH = (torch.eye(4), torch.arange(4) % 3)
PRESENT = (*planted(), "~task", "+task._target_=tests.zoo.tasks.Present", "train.steps=9", "log.every=3")


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Linear(4, 3)


@pytest.mark.parametrize("kind", WRONG)
def test_an_answer_that_is_no_ratios_is_refused_in_words(kind: str) -> None:
    with pytest.raises(ConfigError, match=WRONG[kind][1]):
        checked(Wrong(kind).ratios(model(), BATCH), trains=True)


def test_numbers_of_every_shape_that_means_one_are_taken() -> None:
    found = checked(Plain().ratios(model(), BATCH), trains=True)
    assert {name: (ratio.total.shape, float(ratio.count)) for name, ratio in found.items()} == {
        "loss": (torch.Size(), 4.0),
        "accuracy": (torch.Size(), 4.0),
    }
    found["loss"].total.backward()  # type: ignore[no-untyped-call]
    assert checked({"loss": Ratio(torch.zeros(()), 0)}, trains=False)


def test_sums_and_counts_on_several_devices_come_together_on_the_ranks() -> None:
    """`meta` stands for a GPU: numbers there cannot be told, but what lies elsewhere does not mix with them."""
    ours, host, number = torch.tensor(2.0, device="meta"), torch.tensor(3, dtype=torch.int64), 5
    rows = [_scalar(cell, ours.device) for cell in (ours, host, number)]
    assert torch.stack(rows).device == ours.device
    assert {row.dtype for row in rows} == {torch.float64}
    ratios = {"loss": Ratio(ours, host), "right": Ratio(host, ours)}
    _Chunk([StepResult(0, [ratios], host.float(), host.bool(), None)])


@pytest.mark.parametrize("name", sorted(RESERVED))
def test_what_a_line_says_itself_is_no_name_of_a_metric(name: str) -> None:
    answer = {"loss": Ratio(torch.zeros(()), 4), name: Ratio(torch.zeros(()), 4)}
    with pytest.raises(ConfigError, match=f"a metric called {name}, .* Call it {name}_of_task"):
        checked(answer, trains=False)


def test_a_mean_is_told_to_return_its_sum_first_of_all() -> None:
    with pytest.raises(
        ConfigError, match=r"counted as 1, and a batch has 8 samples: a mean already. Return the sum and"
    ):
        check_count(1, 8, counts_data=False)
    with pytest.raises(ConfigError, match="counted as 1 for 8 samples, though counts_data = True"):
        check_count(1, 8, counts_data=True)
    with pytest.raises(ConfigError, match="divides its loss by 7, and a batch has 8 samples"):
        check_count(7, 8, counts_data=False)
    with pytest.raises(ConfigError, match="divides its loss by a tensor"):
        check_count(torch.tensor(8), 8, counts_data=False)
    check_count(8, 8, counts_data=False)
    check_count(1, 1, counts_data=False)
    check_count(torch.tensor(1), 8, counts_data=True)  # such as one labelled pixel
    check_count(5, 8, counts_data=True)


def test_batches_may_differ_in_their_metrics_on_any_number_of_ranks(starter: Starter) -> None:
    """And each split has its own; the best checkpoint may be told by one that only the evaluation has."""
    evaluated = ("data.eval={_target_:tests.train.faulty_parts.Planted,samples:40}", "eval.batch=8", "eval.every=3")
    best = ("checkpoint.best_metric=eval_only", "checkpoint.best_mode=max", "checkpoint.every=3")
    runs = [starter.train(ranks, *PRESENT, *evaluated, *best, name=f"{ranks}") for ranks in (1, 2)]
    one, two = (run.metrics("train") for run in runs)
    for alone, shared in zip(*(run.metrics("eval") for run in runs), strict=True):
        assert {name for name in alone if name.startswith("right/")} == {f"right/{kind}" for kind in range(10)}
        assert "train_only" not in alone
        assert {**alone, "time": 0} == {**shared, "time": 0}
    assert runs[0].summary["best"] == runs[1].summary["best"]
    assert runs[0].summary["best"]["value"] == max(line["eval_only"] for line in runs[0].metrics("eval"))
    own = {name for line in one for name in line if name.startswith("right/")}
    assert len(own) > 5
    for alone, shared in zip(one, two, strict=True):
        assert alone.keys() == shared.keys()
        assert {name: alone[name] for name in own & alone.keys()} == {name: shared[name] for name in own & alone.keys()}
    written = {name for line in one for name in line} - own - {"loss", "train_only"}
    assert written | rates(Spent({}, faults=10**9), 1, 1).keys() <= RESERVED


@pytest.mark.parametrize(
    ("reduction", "count", "warns"),
    [("sum", None, False), ("mean", None, True), ("mean", torch.tensor(1), True), ("noise", None, False)],
)
def test_a_loss_that_does_not_grow_with_the_samples_is_told(
    reduction: str, count: torch.Tensor | None, warns: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Divided by the number of samples once more, or by a count of one."""

    class Reducing(Task):
        def ratios(self, model: nn.Module, batch: Batch) -> Mapping[str, Ratio]:
            inputs, labels = batch
            noise = torch.rand(()) if reduction == "noise" else 1.0
            loss = F.cross_entropy(model(inputs), labels, reduction="sum" if reduction == "sum" else "mean")
            return {"loss": Ratio(loss * noise, len(labels) if count is None else count)}

    tried = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Dropout())
    tried[1].eval()
    warn_of_mean(Reducing(), tried, BATCH, 4)
    assert ("the loss looks like a mean: 2 samples, and the same ones twice" in caplog.text) == warns
    assert [module.training for module in tried.modules()] == [True, True, False, True]
    warn_of_mean(Reducing(), tried, (BATCH[0], BATCH[1][:3]), 4)
    assert len(caplog.records) == warns, "a batch that is no rows is left alone"

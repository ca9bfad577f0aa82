"""What nobody would train, share or save is found before the first step, in words; what is only looked at is no matter."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from phalanx.exit.codes import ConfigError
from phalanx.train.engine.model_checks import check_layouts, check_loss_parameters, check_model
from phalanx.train.parallel.loss_module import LossModule
from tests.zoo.tasks import Holding

BATCH = (torch.eye(4), torch.arange(4) % 3)


class Listed(nn.Module):
    """Keeps layers in a plain list, where no Module looks for them."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = [nn.Linear(4, 3)]
        self.last = nn.Linear(3, 3)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.last(self.layers[0](inputs))
        return logits


class Looking(nn.Module):
    """Looks its weights up with sparse gradients, by no layer that says so."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.ones(4, 3))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return F.embedding(inputs.argmax(1), self.table, sparse=True)


def loss_of(task: Holding, model: nn.Module) -> torch.Tensor:
    return task.ratios(model, BATCH)["loss"].total


def check_loss(loss: torch.Tensor, model: nn.Module, task: Holding) -> None:
    check_loss_parameters(loss, model.parameters(), LossModule(model, task, find_unused=False))


@pytest.mark.parametrize(
    ("kind", "named"),
    [
        ("module", "the task's loss.weight"),
        ("nested", "the task's by_name.losses.0.weight"),
        ("tensor", "task's scale"),
    ],
)
def test_weights_of_a_task_are_refused_by_name_where_the_loss_depends_on_them(kind: str, named: str) -> None:
    model, task = nn.Linear(4, 3), Holding(kind)
    with pytest.raises(ConfigError, match=f"depends on .*{named}, which is no parameter of the model"):
        check_loss(loss_of(task, model), model, task)


@pytest.mark.parametrize("kind", ["teacher", "frozen", "none"])
def test_what_a_task_only_looks_at_is_left_to_it(kind: str) -> None:
    model, task = nn.Linear(4, 3), Holding(kind)
    check_loss(loss_of(task, model), model, task)


def test_layers_in_a_plain_list_are_found_though_the_model_does_not_know_them() -> None:
    model, task = Listed(), Holding("none")
    with pytest.raises(ConfigError, match=r"the model's layers\.0\.weight, .* nn\.ModuleList"):
        check_loss(loss_of(task, model), model, task)


def test_an_input_that_is_differentiated_is_no_weight() -> None:
    model, task = nn.Linear(4, 3), Holding("none")
    inputs = torch.eye(4, requires_grad=True)
    check_loss(F.cross_entropy(model(inputs), BATCH[1]), model, task)


def test_weights_without_a_shape_and_gradients_of_another_layout_are_refused_by_name() -> None:
    with pytest.raises(ConfigError, match=r"0\.weight has no shape before its first batch: it is a LazyLinear"):
        check_model(nn.Sequential(nn.LazyLinear(3)))
    model, task = Looking(), Holding("none")
    with (
        pytest.raises(ConfigError, match=r"gradient of table is sparse, and it is no table of an nn\.Embedding"),
        check_layouts({"table": model.table}),
    ):
        loss_of(task, model).backward()  # type: ignore[no-untyped-call]
    assert not model.table._backward_hooks

"""The interface of a parallel strategy, for build, step, save and evaluation."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, ClassVar

import torch
from torch import nn

from phalanx.config.schema import ParallelConfig

from ..distributed.world import World
from ..loading.batch import Batch
from ..optim.gradients import Gradients
from ..tasks.task import Ratio
from .loss_module import LossModule


class ParallelStrategy(ABC):
    """How parameters, gradients and optimizer state are distributed over the ranks, and what is communicated in a step.

    No other code may assume that a rank holds all weights, or a full gradient. All ranks call each method, in the same
    order, since any may contain collectives.

    `module` holds the model and the task; an evaluation calls `model` itself, so its forward must work by itself.
    `gradients` are those of what `named_parameters` lists, as the updater reads, scales and clears them: their norm is
    that of the whole gradient, on every rank the same.
    """

    module: LossModule
    gradients: Gradients
    options: ClassVar[frozenset[str]] = frozenset()  # of DDP's keys those that it reads; others are refused where set
    sparse_gradients: ClassVar[bool] = False  # whether it takes those of nn.Embedding(sparse=True)
    collective_forward: ClassVar[bool] = False
    """Whether a forward of the model communicates, as where weights are gathered for it.

    Then all ranks make as many forwards in each step and evaluation: in a step with the batch None, in an evaluation with
    a batch of another rank's, whose numbers are discarded. Such a strategy communicates in a process group of its own
    (`torch.distributed.new_group()`): collectives of the default group in a forward count as the task's, which then needs
    equal shares of every batch.
    """

    @abstractmethod
    def __init__(self, module: LossModule, world: World, config: ParallelConfig) -> None:
        """Wrap the model. Its parameters may be replaced, and `module.model` itself.

        A strategy has keyword arguments of its own after these three: the keys of `parallel.args`.

        The model is whole, on the rank's device: the trial of train.channels_last has run it there, and train.init_from
        has loaded it. With train.compile it will be compiled at its first call, as it is by then. Each rank has built a
        model of its own; all go on with rank 0's weights and buffers (`broadcast_model`). Raises ConfigError with
        agreed=True, on all ranks alike.
        """

    @property
    def model(self) -> nn.Module:
        return self.module.model

    @abstractmethod
    def named_parameters(self) -> list[tuple[str, nn.Parameter]]:
        """What the optimizer updates and the average follows, as this rank holds it; frozen ones, too."""

    @abstractmethod
    def replicated_parameters(self) -> Mapping[str, torch.Tensor]:
        """The parameters that every rank holds whole: before each save they are compared bit by bit."""

    def graph_parameters(self) -> Mapping[str, torch.Tensor]:
        """The parameters that the graph of a forward ends in, by name; here those of the model.

        Others where the model holds shards between forwards, and whole tensors in them.
        """
        return dict(self.model.named_parameters())

    @abstractmethod
    def __call__(self, batch: Batch | None) -> Mapping[str, Ratio]:
        """The forward of a training step. None is the share of a rank for which no sample is left: it takes part with a
        loss whose gradients are zero."""

    @abstractmethod
    def after_warm_up(self) -> None:
        """After the first backward, which counts for nothing: clear its gradients, and lay out where the next ones go.

        Raises ConfigError naming the parameters that no gradient reached.
        """

    @abstractmethod
    def begin_step(self) -> None:
        """Before a step's first forward."""

    @abstractmethod
    def accumulate(self) -> AbstractContextManager[object]:
        """Inside, forward and backward accumulate gradients without communication: for all micro-batches but the last."""

    @abstractmethod
    def before_last_backward(self) -> None:
        """Between the forward and the backward of a step's last micro-batch, which is outside `accumulate`."""

    @abstractmethod
    def reduce_gradients(self) -> None:
        """After a step's last backward: the gradients are the mean over the ranks of what each has added up.

        Raises ConfigError naming the parameters that no gradient reached.
        """

    @abstractmethod
    def after_step(self, skipped: torch.Tensor) -> None:
        """After the optimizer's step. `skipped` is a scalar on the device, 1.0 where the gradient was not finite."""

    def retrain(self, names: Sequence[str]) -> None:
        """Train the parameters `names` from the next step on, and no others: set requires_grad, and reduce only these.

        Those that are frozen keep a `.grad` of None. `gradients` stays the same object. An uncounted backward and
        `after_warm_up` follow. Only needed where train.freeze changes within a run.
        """
        raise AssertionError("a strategy that does not retrain is refused before training")

    def phase(self, names: Sequence[str]) -> "ParallelStrategy":
        """A strategy of the same model in which only the parameters `names` train, with gradients of its own.

        There is one a phase of the task, and this one makes no forward then. All ranks call it.
        """
        raise AssertionError("a strategy that has no phases is refused before training")

    def begin_phase(self) -> None:
        """Set requires_grad as this strategy's phase has it: others of the same model have stepped since."""
        return None

    def state(self) -> Mapping[str, Any] | None:
        """This rank's own state, which is only restored on the same number of ranks; None if there is none."""
        return None

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Restore what `state` returned."""
        raise AssertionError("a strategy that has a state restores it")

    @abstractmethod
    def full_weights(self) -> dict[str, Any]:
        """The model's state_dict with every tensor whole, and under the names and shapes of a model on one rank.

        Rank 0 writes it. The tensors may be the model's own: copy them to keep them over a step.
        """

    @abstractmethod
    def load_full_weights(self, weights: Mapping[str, Any]) -> None:
        """Load what `full_weights` returned on any number of ranks. Every rank has read the whole."""

    @abstractmethod
    def full_optimizer_state(self, state: Mapping[str, Any]) -> Mapping[str, Any]:
        """The updater's state with every tensor whole, as rank 0 writes it."""

    @abstractmethod
    def own_optimizer_state(self, state: Mapping[str, Any]) -> Mapping[str, Any]:
        """This rank's part of what `full_optimizer_state` gave on any number of ranks.

        Every rank has read the whole, which lies in the host's memory. What is returned is moved to the device.
        """


def unused(names: list[str]) -> str:
    """The message for parameters that took no part in a step."""
    listed = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
    return (
        f"No gradient reached {listed or 'some parameters'}: the loss does not depend on them in this step. Remove "
        "them, set requires_grad=False on them, or type parallel.find_unused=true if they take part in some steps only"
    )

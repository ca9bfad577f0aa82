"""Model and task as one module, whose forward is that of a training step."""

from collections.abc import Mapping

import torch
from torch import nn

from phalanx.exit import user_error

from ..loading.batch import Batch, shapes
from ..optim.sparse_gradients import is_table, no_rows
from ..tasks.answer import checked
from ..tasks.task import Ratio, Task
from .gather_features import take_part


class LossModule(nn.Module):
    """Model and task as one module, so that a wrapper sees all of a forward, whatever the task does with the model."""

    def __init__(self, model: nn.Module, task: Task, *, find_unused: bool) -> None:
        """`find_unused`: some parameters take no part in some steps."""
        super().__init__()
        self.model = model
        self.task = task
        self._find_unused = find_unused

    def forward(self, batch: Batch | None) -> Mapping[str, Ratio]:
        """The task's ratios; for None, the share of a rank for which no sample is left, a loss with zero gradients."""
        if batch is None:
            parameters = [p for p in self.model.parameters() if p.requires_grad]
            if self._find_unused:
                del parameters[1:]  # whether the others take part is for the ranks with samples to say
            parts = [no_rows(p) if is_table(p) else _first(p) for p in parameters]
            nothing = torch.stack([part.float() for part in parts]).sum() * 0.0
            waits = take_part(nothing.device)  # all ranks take part, where the task gathers features
            return {"loss": Ratio(nothing if waits is None else nothing + waits, 0)}
        try:
            found = self.task.ratios(self.model, batch)
        except Exception as error:
            user_error.add_context(error, batch=shapes(batch), read=True)
            raise
        try:
            return checked(found, trains=True)
        except Exception as error:
            user_error.add_context(error, batch=shapes(batch))
            raise


def _first(parameter: torch.Tensor) -> torch.Tensor:
    real = torch.view_as_real(parameter) if parameter.is_complex() else parameter
    return real.flatten()[:1].sum()

"""The gradients as a few flat buffers: one operation a buffer, however many parameters there are."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch

from .sparse_gradients import SparseGradients, is_table


class Gradients(ABC):
    """The gradients as an updater uses them, sharded or not."""

    @property
    @abstractmethod
    def exact(self) -> bool:
        """Whether any is of 64 bits."""

    @abstractmethod
    def norm(self) -> torch.Tensor:
        """L2 norm of the whole gradient, a device scalar, the same on every rank. All ranks call it after a reduction."""

    @abstractmethod
    def divide(self, divisor: torch.Tensor) -> None:
        """Divide all by a device scalar."""

    @abstractmethod
    def zero(self) -> None:
        """Zero all in place for the next step, also if an optimizer replaced a `.grad`."""


class FlatGradients(Gradients):
    """The full gradients of `parameters` on every rank.

    DistributedDataParallel keeps them as views of its buckets; without it they are laid out here. Both ways `flats` are
    tensors that together hold each gradient once and nothing else.
    """

    def __init__(self, parameters: Sequence[torch.nn.Parameter], *, find_unused: bool) -> None:
        """`find_unused`: some parameters get no gradient in some steps, and keep out of those steps' updates."""
        self._parameters: Sequence[torch.nn.Parameter]
        self.sparse: SparseGradients
        self._split(parameters)
        self._find_unused = find_unused
        self._flats: list[torch.Tensor] = []
        self._laid_out = False
        self._versions = 0
        self._hooks: list[torch.utils.hooks.RemovableHandle] = []
        self._held: list[tuple[torch.nn.Parameter, torch.Tensor]] = []
        self._arrived: set[torch.nn.Parameter] | None = (
            None  # filled by hooks, used where a user's own hooks would disturb the version count
        )

    def _split(self, parameters: Sequence[torch.nn.Parameter]) -> None:
        """Tables whose gradients are sparse are kept apart: neither flat buffers nor DDP's buckets hold those."""
        self._parameters = [parameter for parameter in parameters if not is_table(parameter)]
        self.sparse = SparseGradients([parameter for parameter in parameters if is_table(parameter)])

    @property
    def exact(self) -> bool:
        return any(parameter.dtype == torch.float64 for parameter in [*self._parameters, *self.sparse.tables])

    def begin(self, *, wrapped: bool) -> None:
        """After the uncounted backward: clear the gradients, and without DDP lay them out in one buffer a dtype."""
        if self._find_unused or not wrapped:
            self.drop()
        self.sparse.drop()
        if not self._find_unused and not wrapped:
            self._lay_out()
            if any(parameter._post_accumulate_grad_hooks for parameter in self._parameters):
                self._arrived = set()
                self._hooks = [
                    parameter.register_post_accumulate_grad_hook(self._arrived.add)  # type: ignore[no-untyped-call]
                    for parameter in self._parameters
                ]
        for parameter in self._parameters:
            if parameter.grad is not None:
                parameter.grad.zero_()

    def retrain(self, parameters: Sequence[torch.nn.Parameter]) -> None:
        """Be the gradients of `parameters` from now on; another uncounted backward and `begin` have to follow."""
        for hook in self._hooks:
            hook.remove()
        self.drop()
        self._split(parameters)
        self._hooks, self._arrived, self._laid_out = [], None, False

    def expect(self) -> None:
        """Before the step's last backward, whose gradients `missing` counts."""
        if self._arrived is not None:
            self._arrived.clear()
        self._versions = sum(flat._version for flat in self._flats) if self._laid_out else 0

    def missing(self) -> list[torch.nn.Parameter]:
        """The parameters that the last backward did not reach; empty with DDP, which checks that itself.

        Each gradient that is accumulated increments the version counter of its buffer.
        """
        if not self._laid_out:
            return []
        if self._arrived is not None:
            return [parameter for parameter in self._parameters if parameter not in self._arrived]
        if sum(flat._version for flat in self._flats) - self._versions >= len(self._parameters):
            return []
        return [p for p in self._parameters if p.grad is None or not p.grad.any()]

    def gathered(self) -> Sequence[torch.Tensor]:
        """After a backward, the flat buffers, with any `.grad` that a user's hook replaced copied in."""
        for parameter, gradient in self._held:
            if parameter.grad is not gradient:
                gradient.zero_() if parameter.grad is None else gradient.copy_(parameter.grad)
                parameter.grad = gradient
        return self._flats

    def find(self) -> None:
        """After a backward: find the buffers that hold the gradients."""
        if self._flats and not self._find_unused:
            return
        self._flats = []
        self._held = [(parameter, parameter.grad) for parameter in self._parameters if parameter.grad is not None]
        by_storage: dict[int, list[torch.Tensor]] = {}
        for _, gradient in self._held:
            by_storage.setdefault(gradient.untyped_storage().data_ptr(), []).append(gradient)
        for sharing in by_storage.values():
            whole = torch.empty(0, dtype=sharing[0].dtype, device=sharing[0].device)
            whole.set_(sharing[0].untyped_storage())
            self._flats += [whole] if whole.numel() == sum(g.numel() for g in sharing) else sharing

    def norm(self) -> torch.Tensor:
        self.find()
        norms: list[torch.Tensor] = [torch.linalg.vector_norm(flat) for flat in self._flats] + self.sparse.norms()
        if not norms:  # no rank has met a row of the tables, and there is nothing else
            return torch.zeros((), device=self.sparse.tables[0].device)
        whole: torch.Tensor = norms[0] if len(norms) == 1 else torch.linalg.vector_norm(torch.stack(norms))
        return whole

    def divide(self, divisor: torch.Tensor) -> None:
        for flat in self._flats:
            flat.div_(divisor)
        self.sparse.divide(divisor)

    def zero(self) -> None:
        if self._find_unused:
            self.drop()
        for parameter, gradient in self._held:
            if parameter.grad is not gradient:
                parameter.grad = gradient
        for flat in self._flats:
            flat.zero_()
        self.sparse.drop()

    def drop(self) -> None:
        """Forget all gradients, as before the first backward."""
        self._flats, self._held = [], []
        self.sparse.drop()
        for parameter in self._parameters:
            parameter.grad = None

    def _lay_out(self) -> None:
        self._laid_out = True
        for dtype in dict.fromkeys(parameter.dtype for parameter in self._parameters):  # in one order on all ranks
            of_dtype = [parameter for parameter in self._parameters if parameter.dtype == dtype]
            flat = torch.zeros(sum(p.numel() for p in of_dtype), dtype=dtype, device=of_dtype[0].device)
            start = 0
            for parameter in of_dtype:
                # The parameter's own strides, such as channels-last: fused kernels walk both in memory order.
                gradient = flat.as_strided(parameter.size(), parameter.stride(), start)
                parameter.grad = gradient
                self._held.append((parameter, gradient))
                start += parameter.numel()
            self._flats.append(flat)

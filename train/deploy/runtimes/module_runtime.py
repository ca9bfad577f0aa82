"""A torch module in the place of a runtime."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils import _pytree as pytree

from .runtime import Arrays, Runtime, as_array


class ModuleRuntime(Runtime):
    """Calls `module` with tensors by keyword; the tensors of its answer are the `outputs`, in their order.

    The inputs `bfloat16` are handed on as such.
    """

    def __init__(
        self,
        module: Callable[..., Any],
        outputs: Sequence[str],
        device: torch.device,
        bfloat16: Collection[str] = (),
    ) -> None:
        self.told = f"torch {torch.__version__} on {device.type}"
        self._module = module
        self._outputs = outputs
        self._device = device
        self._bfloat16 = bfloat16

    @torch.no_grad()
    def __call__(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        given = {name: torch.from_numpy(np.ascontiguousarray(array)).to(self._device) for name, array in inputs.items()}
        given |= {name: given[name].bfloat16() for name in self._bfloat16}
        answer = self._module(**given)
        if isinstance(answer, Mapping) and all(name in answer for name in self._outputs):
            found = [answer[name] for name in self._outputs]
        else:
            found = [leaf for leaf in pytree.tree_leaves(answer) if isinstance(leaf, torch.Tensor)]
        return {name: as_array(tensor) for name, tensor in zip(self._outputs, found, strict=True)}

"""The interface of a loaded export."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from numpy.typing import NDArray

Arrays = Mapping[str, NDArray[Any]]


class Runtime(ABC):
    """A model that answers arrays by name with arrays by name, in the dtypes that its manifest says.

    What is of bfloat16 there, which NumPy has not, is of float32 here.
    """

    told: str  # which runtime it is, with its version

    @abstractmethod
    def __call__(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        """Batches of any size, and of any length where a dimension has a name."""


def as_array(tensor: torch.Tensor) -> NDArray[Any]:
    """On the host; of bfloat16 as float32, which holds the same numbers."""
    host = tensor.cpu()
    return (host.float() if host.dtype is torch.bfloat16 else host).numpy()

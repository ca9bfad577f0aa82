"""The interface of a loaded export."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

Arrays = Mapping[str, NDArray[Any]]


class Runtime(ABC):
    """A model that answers arrays by name with arrays by name, in the dtypes that its manifest says."""

    told: str  # which runtime it is, with its version

    @abstractmethod
    def __call__(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        """Batches of any size, and of any length where a dimension has a name."""

"""An array in a file, of which only what is read comes into memory."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from phalanx.exit.codes import ConfigError


class MappedArray:
    """The array of a .npy file, memory-mapped and read-only. Sent to another process as its path, and mapped anew there.

    Indexed as an array: a list of indices gives a copy that can be changed, a slice gives a view that cannot.
    """

    def __init__(self, path: Path) -> None:
        """Raises ConfigError where the file is no array, or one of objects."""
        self.path = path
        try:
            self._array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise ConfigError(f"{path} cannot be read as an array: {error}. Prepare it anew, or restore it") from None
        self.shape = self._array.shape
        self.dtype = self._array.dtype

    def __len__(self) -> int:
        return len(self._array)

    def __getitem__(self, key: Any) -> NDArray[Any]:
        found: NDArray[Any] = self._array[key]
        return found

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> ArrayLike:
        return np.array(self._array, dtype, copy=True) if copy else np.asarray(self._array, dtype)

    def __reduce__(self) -> tuple[type["MappedArray"], tuple[Path]]:
        return MappedArray, (self.path,)

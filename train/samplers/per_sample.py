"""Numbers of each sample of a data set, such as its label, weight or length, from wherever they are."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import ConcatDataset, Dataset, Subset

from phalanx.exit import user_error
from phalanx.exit.codes import ConfigError

Given = str | Sequence[float] | Callable[[Any], float]


def per_sample(dataset: Dataset[Any], given: Given, samples: int, where: str) -> NDArray[Any]:
    """One number a sample, shape (samples,).

    `given` is a list of them, or the name of an attribute or column of the data set, or a function of a sample, for which
    every sample is read. Raises ConfigError naming `where`.
    """
    if isinstance(given, str):
        found = _attribute(dataset, given)
        if found is None:
            raise ConfigError(
                f"{where}={given} names no attribute of the data set, a {type(dataset).__name__}. Give it an attribute "
                f"{given}, a list or an array with one number a sample, or type the list itself"
            )
    elif callable(given):
        found = np.array([_of_sample(dataset, given, index) for index in range(samples)])
    else:
        found = given
    numbers = found.detach().cpu().numpy() if isinstance(found, torch.Tensor) else np.asarray(found)
    if numbers.ndim != 1 or numbers.dtype.kind not in "iufb":
        raise ConfigError(f"{where} is not one number a sample: its shape is {numbers.shape}, its kind {numbers.dtype}")
    if len(numbers) != samples:
        raise ConfigError(
            f"{where} has {len(numbers)} numbers, and the data set has {samples} samples. Give it one a sample"
        )
    return numbers


def labels_of(dataset: Dataset[Any], samples: int, where: str) -> NDArray[Any]:
    """The class of each sample, from the attribute `labels` or `targets`, or the column `label`. Raises ConfigError."""
    for name in ("labels", "targets", "label"):
        if (found := _attribute(dataset, name)) is not None:
            return per_sample(dataset, found, samples, f"{where}: the data set's {name}")
    raise ConfigError(
        f"{where} needs the class of each sample, and the data set, a {type(dataset).__name__}, has neither an attribute "
        "labels nor targets. Give it one, or type the name of an attribute with a weight a sample"
    )


def _attribute(dataset: Any, name: str) -> Any:
    """Of the data set, or of those that it is a part or a row of; None where there is none."""
    found = getattr(dataset, name, None)
    if found is not None and not callable(found):
        return found
    if name in (getattr(dataset, "column_names", None) or ()):  # a data set of Hugging Face's
        return dataset[name]
    if isinstance(dataset, Subset):
        inner = _attribute(dataset.dataset, name)
        return None if inner is None else np.asarray(inner)[np.asarray(dataset.indices)]
    if isinstance(dataset, ConcatDataset):
        parts = [_attribute(part, name) for part in dataset.datasets]
        return None if any(part is None for part in parts) else np.concatenate([np.asarray(part) for part in parts])
    return None


def _of_sample(dataset: Any, given: Callable[[Any], float], index: int) -> float:
    with user_error.context(sample=index, act="while data.sampler read each sample"):
        return given(dataset[index])

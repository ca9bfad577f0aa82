"""Inputs of training samples, from which quantization learns the ranges of activations."""

from collections.abc import Iterator
from typing import Any

from numpy.typing import NDArray
from torch.utils.data import Dataset

from phalanx.exit.codes import ConfigError

from ...engine.parts.data_loading import collation, length
from ...loading.fetch import PositionDataset
from ...loading.order import Order
from ...loading.shard import Span
from ...loading.streams.reader import is_stream
from ..observed import call_on
from .exporting import Exporting

_SAMPLES, _BATCH = 256, 32


def calibration_inputs(exporting: Exporting) -> Iterator[dict[str, NDArray[Any]]]:
    """Batches of the first samples of an epoch, not augmented. Raises ConfigError where the training set is a stream."""
    parts, form = exporting.parts, exporting.observed.form
    config, builder = parts.config, parts.builder
    builder.check(config.data.train, "data.train", Dataset)
    dataset = builder.build(config.data.train, "data.train", Dataset)
    if is_stream(dataset):
        raise ConfigError(
            "--dtype int8 is calibrated on training samples by index, and data.train is a stream. Type --dtype fp16, or "
            "data.train=… with a set that has a length"
        )
    samples = length(dataset, "data.train")
    order, collate = Order(samples, config.seed), collation(config, builder, dataset)
    source = PositionDataset(dataset, order, None, config.seed, collate)
    for start in range(0, min(_SAMPLES, samples), _BATCH):
        batch = source.__getitems__(Span(start, min(start + _BATCH, samples)))
        if batch is not None:
            call = call_on(parts, batch, "data.train")
            inputs = form.taken(parts.model, call.positional, call.keywords)
            if inputs is not None:
                yield {name: tensor.cpu().numpy() for name, tensor in inputs.items()}

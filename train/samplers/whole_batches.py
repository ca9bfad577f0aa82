"""Leave out what is left of each epoch after its last whole batch."""

import numpy as np

from phalanx.exit.codes import ConfigError

from ..loading.order import Indices, Positions


class WholeBatches:
    """Positions of epochs of whole batches alone: each begins with a new batch, and its last samples are not taken."""

    def __init__(self, order: Positions, epoch: int, batch: int) -> None:
        if epoch < batch:
            raise ConfigError(
                f"data.drop_last=true leaves nothing of an epoch of {epoch} samples, which is less than "
                f"train.global_batch={batch}. Type data.drop_last=false, or train.global_batch={epoch}"
            )
        self.epoch = epoch - epoch % batch
        self._order = order
        self._whole = epoch

    def indices(self, start: int, stop: int) -> Indices:
        found = [np.empty(0, np.int64)]
        while start < stop:
            epoch, offset = divmod(start, self.epoch)
            count = min(stop - start, self.epoch - offset)
            first = epoch * self._whole + offset
            found.append(self._order.indices(first, first + count))
            start += count
        return np.concatenate(found)

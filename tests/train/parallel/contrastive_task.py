"""A loss that compares all samples of a batch: each is to be nearest to those of its class."""

from collections.abc import Mapping

import torch
from torch import nn
from torch.nn import functional as F

import phalanx
from phalanx import Ratio, Task
from phalanx.train.loading.batch import Batch


class Contrastive(Task):
    """Supervised: of the log-probabilities of all samples by similarity the mean over those of one's class.

    Khosla et al., "Supervised Contrastive Learning", 2020. A second gather, of a projection, makes the order matter.
    """

    def ratios(self, model: nn.Module, batch: Batch) -> Mapping[str, Ratio]:
        inputs, labels = batch
        features = F.normalize(model(inputs), dim=1)
        everyone, first = phalanx.gather(features, with_offset=True)
        squares = phalanx.gather(features.square())
        kinds = phalanx.gather(labels)
        scores = (features @ everyone.T + features @ squares.T).log_softmax(1)
        alike = labels[:, None] == kinds[None]
        loss = -(scores * alike).sum(1) / alike.sum(1)
        own = everyone[first : first + len(features)]
        return {
            "loss": Ratio(loss.sum(), len(labels)),
            "found": Ratio((own == features).all(1).sum(), len(labels)),
            "seen": Ratio(torch.tensor(float(len(everyone) * len(labels))), len(labels)),
        }

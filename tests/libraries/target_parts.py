"""What the configs of test_targets name beside the libraries' own callables."""

from typing import Any

import torch
from omegaconf import OmegaConf
from torch import nn
from torch.nn.functional import cross_entropy

from phalanx import Ratio, Task

OmegaConf.register_new_resolver("parts.times", lambda a, b: a * b, replace=True)


class Classify(Task):
    """For models of transformers, which take a batch by name and answer with an object."""

    def ratios(self, model: nn.Module, batch: Any) -> dict[str, Ratio]:
        logits = model(input_ids=batch["input_ids"]).logits
        return {"loss": Ratio(cross_entropy(logits, batch["label"], reduction="sum"), len(logits))}


def texts(samples: int) -> Any:
    """A data set of Hugging Face's, which is none of torch's."""
    from datasets import Dataset

    ids = torch.randint(1, 40, (samples, 6), generator=torch.Generator().manual_seed(0))
    return Dataset.from_dict({"input_ids": ids.tolist(), "label": (ids[:, 0] % 3).tolist()}).with_format("torch")


class LitLike(nn.Module):
    """As the modules of lightning-hydra-template: the net is an argument, and so is how it is trained."""

    def __init__(self, net: nn.Module, optimizer: Any, compile: bool) -> None:
        super().__init__()
        self.net = net
        self.optimizer = optimizer(self.net.parameters())

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.net(images.flatten(1))
        return logits

"""The data sets of an experiment, as its config names them."""

from typing import Any

import torch

from phalanx.compose.compose import compose
from phalanx.train.engine.parts.config_targets import targets
from phalanx.train.prepared.cache import Cache


def data_set(experiment: str, split: str, cache: Cache) -> Any:
    """Data set `split`, train or eval, of an experiment, prepared in `cache`."""
    config = compose([f"experiment={experiment}"]).config
    node = config.data.train if split == "train" else config.data.eval
    assert node is not None
    return targets(config, False, cache).build(node, f"data.{split}", torch.utils.data.Dataset)

"""What a writer of a format gets."""

from dataclasses import dataclass
from pathlib import Path

import torch

from phalanx.deployment.layout import BF16, FP16

from ..observed import Observed
from ..parts import TrainedParts

HALVES = {FP16: torch.float16, BF16: torch.bfloat16}


@dataclass(frozen=True)
class Exporting:
    """The trained model, how it is called, and the folder that its file is written to."""

    parts: TrainedParts
    observed: Observed
    folder: Path
    dtype: str

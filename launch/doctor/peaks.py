"""Peak rates of GPUs from their data sheets: dense Tensor Cores, without sparsity."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Peak:
    """TFLOP/s in bf16, fp16 and tf32; None where the card has no such unit."""

    bf16: float | None
    fp16: float
    tf32: float | None


# NVIDIA's data sheets of each card; their figures "with sparsity" are halved. B200: DGX B200's, an eighth. GeForce: the
# Ada GPU architecture paper, with float32 accumulation, which is what torch asks for. A name of more words comes before one
# of fewer, which it has, too.
_PEAKS: Mapping[str, Peak] = {
    "B200": Peak(2250, 2250, 1125),
    "H200": Peak(989, 989, 495),
    "H100 PCIe": Peak(756, 756, 378),
    "H100 NVL": Peak(835, 835, 418),
    "H100": Peak(989, 989, 495),
    "A100": Peak(312, 312, 156),
    "A10G": Peak(70, 70, 35),
    "A10": Peak(125, 125, 62.5),
    "A40": Peak(149.7, 149.7, 74.8),
    "A30": Peak(165, 165, 82),
    "L40S": Peak(362, 362, 183),
    "L40": Peak(181, 181, 90.5),
    "L4": Peak(121, 121, 60),
    "V100": Peak(None, 125, None),
    "T4": Peak(None, 65, None),
    "RTX 4090": Peak(165.2, 165.2, 82.6),
}


def peak_of(name: str) -> Peak | None:
    """By the name that CUDA gives a card, such as NVIDIA H100 80GB HBM3; None for one that is not in the table.

    A part of a card (MIG), one for laptops and one that is part of a larger package have other figures.
    """
    words = name.replace("-", " ").split()
    if {"MIG", "Laptop", "GB200", "GH200"} & {*words}:
        return None
    return next((peak for model, peak in _PEAKS.items() if set(model.split()) <= set(words)), None)

"""A small FCOS (Tian, Shen, Chen & He 2019), made of torchvision's, for pictures of about a hundred pixels."""

import torch
from torch import nn

_STRIDE = 8
_GROUPS = 8  # of GroupNorm, which, unlike BatchNorm, gives the same on any number of ranks
_HEAD_GROUPS = 32  # those of torchvision's head


class SmallFCOS(nn.Module):
    """Boxes of `classes` kinds, the background being 0, from one map of features at an eighth of the resolution.

    Called with images, a list of (3, h, w) from 0 to 1, and in training with targets, as torchvision's detectors are; the
    losses are `classification`, `bbox_regression` and `bbox_ctrness`. Images are scaled so that their shorter side is
    `size` pixels. With a width of 64, 2 convolutions a head and 11 classes it has 264,416 parameters.
    """

    def __init__(self, classes: int, size: int, width: int, head_convs: int, score_thresh: float) -> None:
        super().__init__()
        if width < _HEAD_GROUPS or width % _HEAD_GROUPS:
            raise ValueError(f"width={width} must be a multiple of {_HEAD_GROUPS}, the groups of torchvision's head")
        # Here, for importing it takes a second, which other models need not wait for.
        from torchvision.models.detection import FCOS
        from torchvision.models.detection.anchor_utils import AnchorGenerator
        from torchvision.models.detection.fcos import FCOSHead

        self.detector = FCOS(
            _Backbone(width),
            num_classes=classes,
            min_size=size,
            max_size=4 * size,
            image_mean=[0.35, 0.35, 0.35],
            image_std=[0.25, 0.25, 0.25],
            anchor_generator=AnchorGenerator(((_STRIDE,),), ((1.0,),)),
            head=FCOSHead(width, 1, classes, head_convs),
            score_thresh=score_thresh,
        )

    def forward(
        self, images: list[torch.Tensor], targets: list[dict[str, torch.Tensor]] | None = None
    ) -> dict[str, torch.Tensor] | list[dict[str, torch.Tensor]]:
        """The losses by name in training mode, else a dict of boxes (n, 4), scores (n,) and labels (n,) an image."""
        answer: dict[str, torch.Tensor] | list[dict[str, torch.Tensor]] = self.detector(images, targets)
        return answer


class _Backbone(nn.Sequential):
    """Images (b, 3, h, w) to features (b, width, h / 8, w / 8)."""

    def __init__(self, width: int) -> None:
        half, quarter = width // 2, width // 4
        super().__init__(
            *_layer(3, quarter, 2),
            *_layer(quarter, half, 2),
            *_layer(half, half, 1),
            *_layer(half, width, 2),
            *_layer(width, width, 1),
            *_layer(width, width, 1),
        )
        self.out_channels = width


def _layer(given: int, width: int, stride: int) -> tuple[nn.Module, ...]:
    return nn.Conv2d(given, width, 3, stride, padding=1, bias=False), nn.GroupNorm(_GROUPS, width), nn.ReLU()

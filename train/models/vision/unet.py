"""A small U-Net (Ronneberger, Fischer & Brox 2015) for pictures of any size."""

import torch
from torch import nn
from torch.nn import functional as F


class UNet(nn.Module):
    """`levels` resolutions, each half of the one before, of `width`, 2 * `width` … channels; a class for each pixel.

    With 3 channels, 6 classes, a width of 16 and 4 levels it has 483,526 parameters.
    """

    def __init__(self, channels: int, classes: int, width: int, levels: int) -> None:
        super().__init__()
        if width < 1:
            raise ValueError(f"width={width} must be at least 1")
        if levels < 2:
            raise ValueError(f"levels={levels} must be at least 2, for one has nothing to go down to")
        widths = [width * 2**level for level in range(levels)]
        self.down = nn.ModuleList(_block(one, two) for one, two in zip([channels, *widths], widths, strict=False))
        pairs = list(zip(widths[1:], widths[:-1], strict=True))[::-1]
        self.wider = nn.ModuleList(nn.ConvTranspose2d(below, here, kernel_size=2, stride=2) for below, here in pairs)
        self.up = nn.ModuleList(_block(2 * here, here) for _, here in pairs)
        self.classify = nn.Conv2d(width, classes, kernel_size=1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Images (b, channels, h, w) to logits (b, classes, h, w)."""
        height, width = images.shape[-2:]
        step = 2 ** len(self.up)
        x = F.pad(images, (0, -width % step, 0, -height % step), mode="replicate")
        skipped: list[torch.Tensor] = []
        for block in self.down:
            x = block(F.max_pool2d(skipped[-1], 2) if skipped else x)
            skipped.append(x)
        for wider, block in zip(self.wider, self.up, strict=True):
            skipped.pop()
            x = block(torch.cat([skipped[-1], wider(x)], 1))
        logits: torch.Tensor = self.classify(x)
        return logits[..., :height, :width]


def _block(channels: int, width: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for given in (channels, width):
        layers += [nn.Conv2d(given, width, 3, padding=1), _ChannelNorm(width), nn.ReLU()]
    return nn.Sequential(*layers)


class _ChannelNorm(nn.LayerNorm):
    """LayerNorm over the channels of each pixel, as ConvNeXt has it (Liu et al. 2022).

    Unlike GroupNorm it keeps what colour a whole picture is of, and unlike BatchNorm it is the same on any number of ranks.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)

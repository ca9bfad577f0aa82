"""Pictures of a batch on the host, which are drawn later: until then they are numbers as the batch has them."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from phalanx.exit.codes import ConfigError

from .canvas import Pixels

_LARGEST = 448  # pixels of a side; a GPU makes larger pictures smaller before they are copied


class HostPicture(NamedTuple):
    """`values` (channels, h, w), and by how much the picture has shrunk: a pixel at x is at x * `shrunk`."""

    values: NDArray[Any]
    shrunk: float

    def pixels(self) -> Pixels:
        """(h, w, 3) of bytes. NumPy's one thread does it, in the time of another."""
        found = self.values
        if found.shape[0] not in (1, 3):
            found = found[:3] if found.shape[0] == 4 else found.astype(np.float32).mean(0, keepdims=True)
        if found.dtype != np.uint8:
            found = np.nan_to_num(found.astype(np.float32))
            low, high = float(found.min()), float(found.max())
            if low < 0 or high > 1:
                found = (found - low) / max(high - low, 1e-12)
            found = (found * 255).round().astype(np.uint8)
        found = found.transpose(1, 2, 0)
        return np.ascontiguousarray(np.repeat(found, 3, 2) if found.shape[2] == 1 else found)


def host_pictures(images: Any, limit: int) -> list[HostPicture]:
    """The first `limit` of `images`: (b, h, w), (b, channels, h, w), or a list of (h, w) and (channels, h, w).

    uint8 as they are; floats from 0 to 1; others, such as those with a mean taken off, from the lowest to the highest
    number of each picture. 1, 3 or 4 channels; of any other number their mean. On a GPU the host waits for them.
    Raises ConfigError.
    """
    return [_host_picture(images[i]) for i in range(min(limit, len(images)))]


def _host_picture(image: Any) -> HostPicture:
    shape = tuple(np.shape(image))
    if len(shape) not in (2, 3) or 0 in shape:
        raise ConfigError(
            f"A picture of shape {shape} cannot be drawn. Give pictures of shape (h, w) or (channels, h, w)"
        )
    shrunk = min(1.0, _LARGEST / max(shape[-2:]))
    if shrunk < 1 and getattr(image, "is_cuda", False):
        image = _smaller(image, shrunk)
    else:
        shrunk = 1.0
    found = host(image)
    return HostPicture(found[None] if found.ndim == 2 else found, shrunk)


def _smaller(image: Any, factor: float) -> Any:
    import torch
    from torch.nn import functional as F

    with torch.autocast(image.device.type, enabled=False):
        image = image.detach().reshape(1, -1, *image.shape[-2:])
        size = [max(1, round(side * factor)) for side in image.shape[-2:]]
        found = F.interpolate(image.float(), size, mode="bilinear", antialias=True, align_corners=False)[0]
        return found.round().clamp(0, 255).to(torch.uint8) if image.dtype == torch.uint8 else found


def host(values: Any) -> NDArray[Any]:
    """An array on the host of a tensor, an array, or a list of numbers; bfloat16 as float32."""
    if hasattr(values, "detach"):
        values = values.detach().cpu()
        values = values.float() if values.is_floating_point() else values
        found: NDArray[Any] = values.numpy().copy()
        return found
    return np.array(values)

"""Log-mel spectrograms, and the mel scale and filters that they are made with."""

import math
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from phalanx.exit.codes import ConfigError

from ...loading.padding_mask import padding_mask

_BREAK_HZ, _STEP_HZ = 1000.0, 200.0 / 3  # Slaney's scale is linear below the first, with such a step a mel
_LOG_STEP = math.log(6.4) / 27  # a mel above it


class LogMel(nn.Module):
    """The natural logarithm of the energy in `mels` bands of the mel scale, in frames of `window_s` each `hop_s` seconds.

    Frames are centred on their samples and zeros stand beyond the ends of a clip, so one of n samples has n // hop + 1
    frames; a clip has the same ones alone and in a batch. The window is Hann's (periodic), the Fourier transform has the
    next power of two of samples, and bands reach from `low_hz` to `high_hz`, by default half the sample rate.

    `scale`: "htk", 2595 log10(1 + f / 700) (Young et al., The HTK Book, section 5.4), or "slaney", linear to 1 kHz and
    logarithmic above (Slaney 1998, Auditory Toolbox). `area`: a filter is divided by half its width in Hz (Slaney's), else
    its peak is 1. `power` of the magnitude: 2 is energy. Values below `floor` are lifted to it before the logarithm.
    `normalize`: each band of a clip gets mean 0 and standard deviation 1 over its frames.
    """

    window: torch.Tensor
    filters: torch.Tensor

    def __init__(
        self,
        sample_rate: int,
        mels: int = 40,
        window_s: float = 0.025,
        hop_s: float = 0.01,
        low_hz: float = 20.0,
        high_hz: float | None = None,
        scale: str = "htk",
        area: bool = False,
        power: float = 2.0,
        floor: float = 1e-7,
        normalize: bool = True,
    ) -> None:
        super().__init__()
        high = sample_rate / 2 if high_hz is None else high_hz
        if not 0 <= low_hz < high <= sample_rate / 2:
            raise ConfigError(
                f"low_hz={low_hz} and high_hz={high_hz} are to lie within 0 and {sample_rate / 2:g}, half of "
                f"sample_rate={sample_rate}, the first below the second"
            )
        if scale not in ("htk", "slaney"):
            raise ConfigError(f"scale={scale} is no mel scale that is known here. Type scale=htk or scale=slaney")
        if mels < 1 or floor <= 0 or min(round(window_s * sample_rate), round(hop_s * sample_rate)) < 1:
            raise ConfigError(
                f"mels={mels}, floor={floor}, window_s={window_s}, hop_s={hop_s}: each is to be above 0, and a window and "
                "a hop a sample long at least"
            )
        self.sample_rate, self.mels, self.power, self.floor = sample_rate, mels, power, floor
        self.window_length, self.hop = round(window_s * sample_rate), round(hop_s * sample_rate)
        self.fft = 1 << (self.window_length - 1).bit_length()
        self.normalize = normalize
        self.arguments: dict[str, Any] = {
            **{"sample_rate": sample_rate, "mels": mels, "window_s": window_s, "hop_s": hop_s, "low_hz": low_hz},
            **{
                "high_hz": high_hz,
                "scale": scale,
                "area": area,
                "power": power,
                "floor": floor,
                "normalize": normalize,
            },
        }
        self.register_buffer("window", torch.hann_window(self.window_length), persistent=False)
        filters = mel_filters(mels, self.fft, sample_rate, low_hz, high, scale, area)
        self.register_buffer("filters", filters, persistent=False)

    def frames(self, samples: torch.Tensor) -> torch.Tensor:
        """How many frames clips of so many samples have."""
        return torch.div(samples, self.hop, rounding_mode="floor") + 1

    def forward(self, waves: torch.Tensor, samples: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Waves (b, longest), floats in -1..1 and zeros beyond each clip's `samples` (b,), to the features (b, frames,
        mels), zeros beyond each clip's end, and the frames of each (b,).
        """
        spectrum = self.spectrum(waves)
        energy = spectrum.real.square() + spectrum.imag.square()  # abs() would take longer than the transform
        bands = self.filters @ (energy if self.power == 2 else energy.pow(self.power / 2))
        logs = bands.clamp(min=self.floor).log().transpose(1, 2)
        frames = self.frames(samples)
        there = padding_mask(frames, logs.shape[1])[:, :, None]
        if self.normalize:
            count = frames[:, None, None]
            centred = (logs - (logs * there).sum(1, keepdim=True) / count) * there
            logs = centred / ((centred.square().sum(1, keepdim=True) / count).sqrt() + 1e-3)
        return logs * there, frames

    def spectrum(self, waves: torch.Tensor) -> torch.Tensor:
        """The short-time Fourier transform of waves (b, samples): complex, (b, fft // 2 + 1, frames)."""
        return torch.stft(
            F.pad(waves, (self.fft // 2, self.fft // 2)),
            *(self.fft, self.hop, self.window_length, self.window),
            center=False,
            return_complex=True,
        )


def mel_filters(
    mels: int, fft: int, sample_rate: int, low_hz: float, high_hz: float, scale: str, area: bool
) -> torch.Tensor:
    """Triangles over the frequencies of a Fourier transform of `fft` samples, (mels, fft // 2 + 1), float32.

    Their corners are evenly spaced on the mel scale, the peak of each is where its neighbours end.
    """
    to_mel, to_hz = (_htk, _htk_hz) if scale == "htk" else (_slaney, _slaney_hz)
    steps = torch.linspace(to_mel(low_hz), to_mel(high_hz), mels + 2, dtype=torch.float64).tolist()
    corners = torch.tensor([to_hz(mel) for mel in steps], dtype=torch.float64)
    hz = torch.arange(fft // 2 + 1, dtype=torch.float64) * sample_rate / fft
    left, peak, right = corners[:-2, None], corners[1:-1, None], corners[2:, None]
    filters = torch.minimum((hz - left) / (peak - left), (right - hz) / (right - peak)).clamp(min=0)
    if area:
        filters = filters * 2 / (right - left)
    return filters.float()


def _htk(hz: float) -> float:
    return 2595 * math.log10(1 + hz / 700)


def _htk_hz(mel: float) -> float:
    return 700 * (10 ** (mel / 2595) - 1)


def _slaney(hz: float) -> float:
    return hz / _STEP_HZ if hz < _BREAK_HZ else _BREAK_HZ / _STEP_HZ + math.log(hz / _BREAK_HZ) / _LOG_STEP


def _slaney_hz(mel: float) -> float:
    first = _BREAK_HZ / _STEP_HZ
    return mel * _STEP_HZ if mel < first else _BREAK_HZ * math.exp(_LOG_STEP * (mel - first))

"""Sound of a spectrogram."""

import torch

from ...data.speech.log_mel import LogMel

_MOMENTUM = 0.99  # of the fast Griffin-Lim algorithm (Perraudin et al. 2013)
_SMALL = 1e-8


def griffin_lim(features: torch.Tensor, log_mel: LogMel, iterations: int = 60) -> torch.Tensor:
    """Samples (n,), within -1 and 1, whose features are nearly these, (frames, mels), which are not normalized.

    Magnitudes are the least-squares ones of the mel bands, lifted to 0; phases are found by going between spectrogram and
    sound (Griffin & Lim 1984), from phases that are the same each time.
    """
    if len(features) < 2:  # one frame is centred on the first sample, of none
        return features.new_zeros(0)
    bands = features.float().exp().T  # (mels, frames)
    filters = log_mel.filters.to(features.device)
    magnitude = (torch.linalg.pinv(filters) @ bands).clamp(min=0).pow(1 / log_mel.power)
    generator = torch.Generator().manual_seed(0)
    phase = torch.rand(magnitude.shape, generator=generator).to(features.device) * 2 * torch.pi
    spectrum = torch.polar(magnitude, phase)
    last = torch.zeros_like(spectrum)
    samples = (features.shape[0] - 1) * log_mel.hop
    for _ in range(iterations):
        found = log_mel.spectrum(_sound(spectrum, log_mel, samples)[None])[0]
        pushed = found + _MOMENTUM * (found - last)
        last = found
        spectrum = magnitude * pushed / pushed.abs().clamp(min=_SMALL)
    return _sound(spectrum, log_mel, samples).clamp(-1, 1)


def _sound(spectrum: torch.Tensor, log_mel: LogMel, samples: int) -> torch.Tensor:
    window = log_mel.window.to(spectrum.device)
    return torch.istft(spectrum, log_mel.fft, log_mel.hop, log_mel.window_length, window, length=samples)

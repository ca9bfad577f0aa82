"""Read a sound file as one channel of 16-bit samples at a given rate."""

import math
import wave
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from phalanx.exit.codes import ConfigError


def decode(file: Path, sample_rate: int) -> NDArray[np.int16]:
    """The samples of a file, its channels averaged, resampled to `sample_rate` Hz.

    WAV files of 16 bits are read as they are; all else (flac, ogg, mp3, other WAV) needs soundfile. Raises ConfigError for
    what cannot be read and for a file without a sample.
    """
    channels, rate = _wav(file) or _any(file)
    if not len(channels):
        raise ConfigError(f"{file} holds no sound: it has 0 samples")
    mono = channels.astype(np.float32).mean(1)
    return to_int16(resampled(mono, rate, sample_rate))


def resampled(samples: NDArray[np.float32], rate: int, to: int) -> NDArray[np.float32]:
    """The samples of one channel at another rate, by a polyphase filter."""
    if rate == to:
        return samples
    from scipy.signal import resample_poly  # here, as training needs none; it comes with scikit-learn

    common = math.gcd(rate, to)
    found: NDArray[np.float32] = resample_poly(samples, to // common, rate // common).astype(np.float32)
    return found


def to_int16(samples: NDArray[np.float32]) -> NDArray[np.int16]:
    """Samples within -32768..32767, rounded and clipped."""
    return samples.round().clip(-32768, 32767).astype(np.int16)


def _wav(file: Path) -> tuple[NDArray[np.int16], int] | None:
    """(samples, channels) and the rate of a WAV file of 16 bits; None where it is none."""
    try:
        with wave.open(str(file)) as sound:
            if sound.getsampwidth() != 2:
                return None
            octets = sound.readframes(sound.getnframes())
            if len(octets) != 2 * sound.getnframes() * sound.getnchannels():
                raise ConfigError(f"{file} is cut short: {sound.getnframes()} samples are announced. Fetch it anew")
            return np.frombuffer(octets, "<i2").reshape(-1, sound.getnchannels()), sound.getframerate()
    except (wave.Error, EOFError):
        return None
    except OSError as error:
        raise ConfigError(f"{file} cannot be read: {error.strerror}") from None


def _any(file: Path) -> tuple[NDArray[np.float32], int]:
    try:
        import soundfile
    except ImportError:
        raise ConfigError(
            f"{file} is no WAV file of 16 bits, and others need soundfile. Type: pip install 'phalanx[data]'"
        ) from None
    try:
        samples, rate = soundfile.read(file, dtype="float32", always_2d=True)
    except (RuntimeError, OSError) as error:
        raise ConfigError(f"{file} cannot be read: {str(error).splitlines()[0]}") from None
    return samples * np.float32(32768), int(rate)

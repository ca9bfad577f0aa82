"""Read a sound file as one channel of 16-bit samples at a given rate."""

import math
import wave
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from phalanx.exit.codes import ConfigError

_UNKNOWN = 2**31 - 2**16  # bytes or more that a header announces which was written into a pipe: nobody knew how many


def decode(file: Path, sample_rate: int) -> NDArray[np.int16]:
    """The samples of a file, its channels averaged, resampled to `sample_rate` Hz.

    WAV files of 16 bits are read as they are; all else (flac, ogg, mp3, other WAV) needs soundfile. Raises ConfigError for
    what cannot be read, for a file without a sample and for samples that are no numbers.
    """
    try:
        octets = file.read_bytes()
    except OSError as error:
        raise ConfigError(f"{file} cannot be read: {error.strerror}") from None
    return decode_bytes(octets, sample_rate, str(file))


def decode_bytes(octets: bytes, sample_rate: int, file: str, longest_s: float = math.inf) -> NDArray[np.int16]:
    """The same of a file's content; `file` is its name in messages, `longest_s` the most seconds that are taken."""
    channels, rate = _wav(octets, file) or _any(octets, file, longest_s)
    if not len(channels):
        raise ConfigError(f"{file} holds no sound: it has 0 samples")
    if rate < 1:
        raise ConfigError(f"{file} has {rate} samples a second, as its header says. Write it anew")
    mono = channels.astype(np.float32).mean(1)
    if not np.isfinite(mono).all():
        raise ConfigError(f"{file} has a sample that is no finite number. Write it anew, or take the line out")
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


def _wav(content: bytes, file: str) -> tuple[NDArray[np.int16], int] | None:
    """(samples, channels) and the rate of a WAV file of 16 bits; None where it is none."""
    try:
        with wave.open(BytesIO(content)) as sound:
            if sound.getsampwidth() != 2:
                return None
            octets = sound.readframes(sound.getnframes())
            frame = 2 * sound.getnchannels()
            if len(octets) != frame * sound.getnframes() < _UNKNOWN:
                raise ConfigError(f"{file} is cut short: {sound.getnframes()} samples are announced. Fetch it anew")
            return np.frombuffer(octets[: len(octets) // frame * frame], "<i2").reshape(
                -1, sound.getnchannels()
            ), sound.getframerate()
    except (wave.Error, EOFError):
        return None


def _any(content: bytes, file: str, longest_s: float) -> tuple[NDArray[np.float32], int]:
    try:
        import soundfile
    except ImportError:
        raise ConfigError(
            f"{file} is no WAV file of 16 bits, and others need soundfile. Type: pip install 'phalanx[data]'"
        ) from None
    try:
        with soundfile.SoundFile(BytesIO(content)) as sound:
            rate, most = sound.samplerate, longest_s * sound.samplerate
            if sound.frames > most:
                raise ConfigError(f"{file} is {sound.frames / rate:.0f} s of sound, and {longest_s:.0f} s are the most")
            samples = sound.read(dtype="float32", always_2d=True)
    except (RuntimeError, OSError) as error:
        raise ConfigError(f"{file} cannot be read: {str(error).splitlines()[0]}") from None
    return samples * np.float32(32768), int(rate)

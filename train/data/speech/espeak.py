"""Speak texts with eSpeak NG, as a program of its own: `python espeak.py`, which reads what to say from standard input.

It is a process apart, as the library is not ours and keeps state of its own: what a process says depends on what it has
said before. So the same list gives the same samples.
"""

import ctypes
import json
import sys
from typing import Any

import numpy as np

_SYNCHRONOUS, _DONT_EXIT = 2, 0x8000  # of espeak_Initialize: samples go to the callback; an error is a code
_UTF8, _BY_CHARACTER = 1, 1  # of espeak_Synth
_PARAMETERS = {"words_per_minute": 1, "pitch": 3, "range": 4}  # espeak_PARAMETER
_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)


def main() -> None:
    """Reads {"library", "data", "out", "utterances": [{"text", "voice", "words_per_minute", "pitch", "range"}]}.

    Writes the samples of all, int16, as `out`, and prints {"rate", "lengths"}.
    """
    asked = json.load(sys.stdin)
    library = ctypes.CDLL(asked["library"])
    rate = library.espeak_Initialize(_SYNCHRONOUS, 0, asked["data"].encode(), _DONT_EXIT)
    if rate < 0:
        sys.exit("eSpeak NG cannot read its data")
    parts: list[Any] = []

    def take(samples: Any, count: int, events: Any) -> int:
        if samples and count:
            parts.append(np.ctypeslib.as_array(samples, (count,)).copy())
        return 0

    kept = _CALLBACK(take)  # the library calls it as long as this lives
    library.espeak_SetSynthCallback(kept)
    library.espeak_Synth.argtypes = [
        *(ctypes.c_char_p, ctypes.c_size_t, ctypes.c_uint, ctypes.c_int, ctypes.c_uint, ctypes.c_uint),
        *(ctypes.c_void_p, ctypes.c_void_p),
    ]
    lengths = []
    for utterance in asked["utterances"]:
        before = len(parts)
        if library.espeak_SetVoiceByName(utterance["voice"].encode()) != 0:
            sys.exit(f"eSpeak NG has no voice {utterance['voice']}")
        for name, code in _PARAMETERS.items():
            library.espeak_SetParameter(code, utterance[name], 0)
        library.espeak_ng_SetRandSeed(ctypes.c_long(1))  # of what makes a voice rough and breathy; else the clock's
        text = utterance["text"].encode() + b"\0"
        library.espeak_Synth(text, len(text), 0, _BY_CHARACTER, 0, _UTF8, None, None)
        library.espeak_Synchronize()
        lengths.append(sum(len(part) for part in parts[before:]))
    np.save(asked["out"], np.concatenate(parts), allow_pickle=False)
    json.dump({"rate": rate, "lengths": lengths}, sys.stdout)


if __name__ == "__main__":
    main()

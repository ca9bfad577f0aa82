"""From what a model says of each frame to tokens: the best path, and a beam over prefixes. Token 0 is the blank."""

import math
from collections import defaultdict

import numpy as np
from numpy.typing import NDArray

_UNLIKELY = -14.0  # log probability below which a frame's token is no candidate of a beam

Decoded = tuple[list[int], float]
"""Tokens without blanks, and their log probability."""


def best_path(logs: NDArray[np.floating]) -> Decoded:
    """The likeliest token of each frame, repeats and blanks taken out (Graves et al. 2006, section 3.2).

    `logs`: log probabilities (frames, classes). The log probability is that of this path alone.
    """
    path = logs.argmax(1)
    first = np.ones(len(path), bool)
    first[1:] = path[1:] != path[:-1]
    return path[first & (path > 0)].tolist(), float(logs.max(1).sum())


def beam_search(logs: NDArray[np.floating], width: int) -> Decoded:
    """The likeliest tokens over all paths, of the `width` likeliest prefixes of each frame (Hannun et al. 2014, alg. 1)."""
    # Of each prefix the log probability of the paths that end in a blank, and of those that end in its last token.
    beam: dict[tuple[int, ...], tuple[float, float]] = {(): (0.0, -math.inf)}
    for frame in logs.astype(np.float64):
        found: dict[tuple[int, ...], list[float]] = defaultdict(lambda: [-math.inf, -math.inf])
        tokens = [token for token in np.flatnonzero(frame > _UNLIKELY).tolist() if token]
        for prefix, (blank, other) in beam.items():
            either = _plus(blank, other)
            mine = found[prefix]
            mine[0] = _plus(mine[0], either + frame[0])
            if prefix:
                mine[1] = _plus(mine[1], other + frame[prefix[-1]])
            for token in tokens:
                # A token twice in a row is two tokens only across a blank.
                ahead = blank if prefix and token == prefix[-1] else either
                longer = found[(*prefix, token)]
                longer[1] = _plus(longer[1], ahead + frame[token])
        ranked = sorted(found.items(), key=lambda each: -_plus(*each[1]))
        beam = {prefix: (blank, other) for prefix, (blank, other) in ranked[:width]}
    prefix, ends = next(iter(beam.items()))
    return list(prefix), _plus(*ends)


def _plus(one: float, other: float) -> float:
    """log(exp(one) + exp(other))."""
    high, low = (one, other) if one > other else (other, one)
    return high if low == -math.inf else high + math.log1p(math.exp(low - high))

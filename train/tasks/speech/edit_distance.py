"""Edits that lead from one sequence to another: what word and character error rates count."""

from collections.abc import Hashable, Sequence

import numpy as np


def edit_distance(said: Sequence[Hashable], found: Sequence[Hashable]) -> int:
    """Fewest insertions, deletions and substitutions that make `found` of `said` (Levenshtein 1966)."""
    codes: dict[Hashable, int] = {}
    target = np.array([codes.setdefault(each, len(codes)) for each in found], np.int64)
    places = np.arange(len(target) + 1)
    row = places.copy()
    for i, each in enumerate(said, 1):
        code = codes.get(each, -1)
        best = np.empty_like(row)
        best[0] = i
        best[1:] = np.minimum(row[1:] + 1, row[:-1] + (target != code))
        # Insertions run along the row: the least of best[k] + (j - k) over all k up to j.
        row = np.minimum.accumulate(best - places) + places
    return int(row[-1])

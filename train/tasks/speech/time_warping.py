"""How far two sequences of frames are apart, whatever their pace."""

import numpy as np
from numpy.typing import NDArray


def time_warped_cost(costs: NDArray[np.floating]) -> float:
    """The least sum of `costs` (n, m) along a path from the first pair of frames to the last (Sakoe & Chiba 1978).

    A step to the next frame of both counts twice, one to the next of either once (their symmetric form without a slope
    constraint), so that each path has the weight n + m, by which the sum is to be divided.
    """
    rows, columns = costs.shape
    costs = costs.astype(np.float64)
    # Diagonal after diagonal: each depends on the two before it.
    before = np.full(rows + 1, np.inf)  # of diagonal d - 1, by row + 1
    earlier = np.full(rows + 1, np.inf)  # of diagonal d - 2
    for diagonal in range(rows + columns - 1):
        row = np.arange(max(0, diagonal - columns + 1), min(rows, diagonal + 1))
        here = costs[row, diagonal - row]
        now = np.full(rows + 1, np.inf)
        if diagonal:
            straight = earlier[row] + 2 * here
            now[row + 1] = np.minimum(straight, np.minimum(before[row], before[row + 1]) + here)
        else:
            now[1] = 2 * here[0]
        earlier, before = before, now
    return float(before[rows])

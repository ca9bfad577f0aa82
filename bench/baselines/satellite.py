"""What the satellite tiles have to beat: logistic regression on colours, their spread and where they are.

    python bench/baselines/satellite.py    # the tiles of experiment=satellite; a minute

`colours`: mean and deviation of each channel and their products; `histogram`: eight levels of each; `grid`: mean and
deviation in nine fields; `all` of them. Prints accuracies on the held-out bands, and the share of the largest class.
"""

import json
import sys
import warnings
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[2])

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from phalanx.data import Cache, WaterTiles

Features = NDArray[np.float64]


def features(tiles: WaterTiles) -> dict[str, Features]:
    images = tiles._images.permute(0, 2, 3, 1).double().numpy()  # standardised, (n, 30, 30, 3)
    count, side = len(images), images.shape[1] // 3
    levels = np.quantile(images, np.arange(1, 8) / 8)
    colours = np.concatenate([images.mean((1, 2)), images.std((1, 2))], 1)
    fields = images.reshape(count, 3, side, 3, side, 3)
    bins = np.searchsorted(levels, images)
    found = {
        "colours": np.concatenate([colours, (colours[:, :, None] * colours[:, None]).reshape(count, -1)], 1),
        "histogram": np.concatenate([(bins == level).mean((1, 2)) for level in range(8)], 1),
        "grid": np.concatenate([fields.mean((2, 4)).reshape(count, -1), fields.std((2, 4)).reshape(count, -1)], 1),
    }
    return {**found, "all": np.concatenate([*found.values()], 1)}


def main() -> None:
    warnings.simplefilter("ignore")  # of how scikit-learn's solver ends
    cache = Cache()
    train, held_out = (WaterTiles(split, cache, True) for split in ("train", "test"))
    labels, expected = train.labels.numpy(), held_out.labels.numpy()
    made, tested = features(train), features(held_out)
    found = {"largest_class": float(np.bincount(expected).max() / len(expected))}
    for name, values in made.items():
        best = 0.0
        for strength in (0.01, 0.1, 1.0):
            model = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=500)).fit(values, labels)
            best = max(best, float(model.score(tested[name], expected)))
        found[name] = round(best, 4)
    print(json.dumps(found))


if __name__ == "__main__":
    main()

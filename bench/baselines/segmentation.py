"""What segmentation has to beat: logistic regression on each pixel's own colour, quadratic in it.

    python bench/baselines/segmentation.py climate    # or water; the same tiles as experiment=segmentation; a minute

It is fitted to 60,000 pixels of the training tiles, drawn with seed 0, and prints accuracy, mIoU and IoU per class on all
pixels of the test tiles.
"""

import json
import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[2])

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import PolynomialFeatures, StandardScaler

from phalanx.train.data.vision.blue_marble import BlueMarble
from phalanx.train.prepared.cache import Cache
from phalanx.train.tasks.vision.confusion_counts import IntersectionOverUnion, confusion_counts

PIXELS = 60_000


def pixels(labels: str, split: str) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Colours (n, 3) and classes (n,) of all pixels of a split."""
    dataset = BlueMarble(labels, split, Cache(), download=True)
    images, masks = dataset.__getitems__(np.arange(len(dataset)))
    return images.movedim(1, -1).reshape(-1, 3).numpy(), masks.flatten().numpy()


def main(labels: str) -> None:
    colours, classes = pixels(labels, "train")
    drawn = np.random.default_rng(0).choice(len(colours), PIXELS, replace=False)
    model = make_pipeline(
        PolynomialFeatures(2, include_bias=False), StandardScaler(), LogisticRegression(max_iter=1000)
    )
    model.fit(colours[drawn], classes[drawn])
    colours, classes = pixels(labels, "test")
    names = BlueMarble(labels, "test", Cache(), download=False).classes
    counts = confusion_counts(torch.from_numpy(model.predict(colours)), torch.from_numpy(classes), len(names))
    found: dict[str, object] = {"accuracy": float(counts.diagonal().sum() / counts.sum())}
    for name, mean in (("miou", True), ("iou", False)):
        metric = IntersectionOverUnion(names, mean=mean)
        metric.update(counts)
        found[name] = metric.compute()
    print(json.dumps(found))


main(*sys.argv[1:])

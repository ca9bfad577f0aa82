"""What detection has to beat: what stands out from the background, in connected parts, each of the nearest digit's class.

    python bench/baselines/detection.py    # the same scenes as experiment=detection; half a minute

A pixel stands out where it differs from the median of the 41 x 41 pixels around it. Connected parts of 40 pixels or
more are boxes. Each is scaled to 16x16 and takes the label of the nearest of all digits in the training scenes, cut out
by their true boxes in the same way; its score falls with the distance. The threshold is the best of four on some of the
training scenes.
"""

import json
import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[2])

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import find_objects, label, median_filter
from torch.nn import functional as F
from torchmetrics.detection import MeanAveragePrecision

from phalanx.train.data.vision.digit_scenes import DigitScenes

SIDE, AROUND, LEAST = 16, 41, 40  # of a cut, pixels; of the median, pixels; pixels of a part
THRESHOLDS = (0.15, 0.2, 0.25, 0.3)
TUNED_ON = 200  # training scenes


def contrast(image: torch.Tensor) -> NDArray[np.float32]:
    """How far each pixel is from its surroundings, the largest over colours; (h, w)."""
    pixels = image.numpy()
    blurred = np.stack([median_filter(channel[::2, ::2], AROUND // 2) for channel in pixels])
    surroundings = blurred.repeat(2, 1).repeat(2, 2)[:, : pixels.shape[1], : pixels.shape[2]]
    found: NDArray[np.float32] = np.abs(pixels - surroundings).max(0).astype(np.float32)
    return found


def cut(shown: NDArray[np.float32], left: int, top: int, right: int, bottom: int) -> NDArray[np.float32]:
    """The part within the box as SIDE x SIDE numbers of length 1, flat."""
    part = torch.from_numpy(shown[top:bottom, left:right].copy())[None, None]
    scaled = F.interpolate(part, (SIDE, SIDE), mode="bilinear", antialias=True).flatten().numpy()
    return (scaled / max(float(np.linalg.norm(scaled)), 1e-6)).astype(np.float32)


def detect(
    shown: NDArray[np.float32], threshold: float, known: NDArray[np.float32], kinds: NDArray[np.int64]
) -> dict[str, torch.Tensor]:
    """Boxes, labels and scores of a picture."""
    parts, _ = label(shown > threshold, np.ones((3, 3)))
    sizes = np.bincount(parts.flatten())
    boxes, cuts = [], []
    for number, place in enumerate(find_objects(parts), 1):
        if sizes[number] >= LEAST:
            rows, columns = place
            boxes.append([columns.start, rows.start, columns.stop, rows.stop])
            cuts.append(cut(shown, *boxes[-1]))
    alike = np.stack(cuts) @ known.T if cuts else np.zeros((0, len(known)), np.float32)
    return {
        "boxes": torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        "labels": torch.from_numpy(kinds[alike.argmax(1)]),
        "scores": torch.from_numpy(alike.max(1, initial=0.0)),
    }


def score(
    scenes: DigitScenes, number: int, threshold: float, known: NDArray[np.float32], kinds: NDArray[np.int64]
) -> dict[str, float]:
    metric = MeanAveragePrecision()
    for image, target in map(scenes.__getitem__, range(number)):
        metric.update([detect(contrast(image), threshold, known, kinds)], [target])
    return {name: round(float(metric.compute()[name]), 4) for name in ("map", "map_50", "map_75")}


def main() -> None:
    train, held_out = DigitScenes("train", 2000, 96, 6, 0), DigitScenes("held_out", 300, 96, 6, 0)
    known, kinds = [], []
    for image, target in map(train.__getitem__, range(len(train))):
        shown = contrast(image)
        known += [cut(shown, *box) for box in target["boxes"].int().tolist()]
        kinds.append(target["labels"].numpy())
    digits, labels = np.stack(known), np.concatenate(kinds)
    tuned = {limit: score(train, TUNED_ON, limit, digits, labels)["map"] for limit in THRESHOLDS}
    best = max(tuned, key=lambda limit: tuned[limit])
    print(json.dumps({"threshold": best, **score(held_out, len(held_out), best, digits, labels)}))


main()

"""What the experiments digits and mnist have to beat, on their own splits: python bench/baselines/digits.py digits (mnist)

Logistic regression on the pixels, the best of three strengths, and the nearest training image.
"""

import sys
import warnings
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[2])

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier

from phalanx.data import MNIST, Digits
from phalanx.train.data.images import Images

_STRENGTHS = (0.01, 0.1, 10.0)


def main() -> None:
    train: Images
    held_out: Images
    if sys.argv[1:] == ["digits"]:
        train, held_out = Digits("train"), Digits("held_out")
    elif sys.argv[1:] == ["mnist"]:
        train, held_out = MNIST("data", "train", True), MNIST("data", "test", True)
    else:
        sys.exit("Type digits or mnist")
    warnings.simplefilter("ignore")  # of how scikit-learn's solver ends
    models = {f"logistic regression, C={c}": LogisticRegression(C=c, max_iter=100) for c in _STRENGTHS}
    for name, model in {**models, "nearest image": KNeighborsClassifier(1)}.items():
        model.fit(pixels(train), train.labels.numpy())
        print(f"{name}: {model.score(pixels(held_out), held_out.labels.numpy()):.4f}", flush=True)


def pixels(images: Images) -> NDArray[np.float32]:
    """(n, 784), standardised."""
    return images._images.flatten(1).numpy()


if __name__ == "__main__":
    main()

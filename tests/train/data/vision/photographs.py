"""Two photographs in pieces, as JPEGs in class folders."""

from pathlib import Path

import numpy as np
import sklearn
from PIL import Image

PHOTOGRAPHS = Path(sklearn.__file__).parent / "datasets" / "images"
CLASSES = {"china": "china.jpg", "flower": "flower.jpg"}


def write_photographs(root: Path, each: int, size: tuple[int, int] = (160, 120)) -> Path:
    """`each` JPEGs of `size` (width, height) for each class, cut out of a photograph at places that a seed gives."""
    draw = np.random.default_rng(0)
    for name, file in CLASSES.items():
        (root / name).mkdir(parents=True, exist_ok=True)
        with Image.open(PHOTOGRAPHS / file) as photograph:
            for i in range(each):
                left, top = int(draw.integers(0, 240)), int(draw.integers(0, 127))
                part = photograph.crop((left, top, left + 400, top + 300)).resize(size, Image.Resampling.BICUBIC)
                part.save(root / name / f"{i:03}.jpg", quality=90)
    return root

"""Images from JPEG files against torchvision's ImageFolder in torch's DataLoader: the crops, flips and floats are the same.

    python bench/data.py images

Photographs of scikit-learn's in pieces, 500 x 375 (ImageNet's middle size, 70 kB) and 1600 x 1200, random crops to 224.
Each contestant is three processes of its own with one worker, in turns. Counted is the processor time of the process and
its worker, so that other programs on the machine do not count: images a second of one core.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import ConcatDataset

from phalanx.data import ImageFolder, RandomCrop
from phalanx.launch.host.processes import children
from phalanx.train.data.vision.files.decode import Decode
from phalanx.train.data.vision.files.standardise import IMAGENET_MEAN, IMAGENET_STD
from phalanx.train.prepared.cache import Cache

STORED = 256  # pixels of the shorter side
SIZE, BATCH, WARM_UP, STARTS = 224, 50, 2, 3  # pixels, images, batches before the clock, processes
REPEATED = 20  # passes
SETS = {"500x375": (500, 375, 200, 10), "1600x1200": (1600, 1200, 100, 4)}  # pixels, images, batches that count
NAMES = ("torchvision", "exact", "scaled", "stored")
Make = Callable[[Any, int, Any], Iterator[Any]]


def contest(script: str) -> None:
    """Runs all contestants as processes of `script`, and prints medians and ratios."""
    with tempfile.TemporaryDirectory() as folder:
        for name, (width, height, count, _) in SETS.items():
            root = Path(folder, name)
            write(root, width, height, count)
            found: dict[str, list[dict[str, float]]] = {each: [] for each in NAMES}
            for _ in range(STARTS):
                for each, of_one in found.items():
                    words = [sys.executable, script, "images", "--child", each, "--folder", str(root)]
                    of_one.append(json.loads(subprocess.run(words, stdout=subprocess.PIPE, check=True).stdout))
            rates = {
                each: statistics.median(one["images_per_cpu_s"] for one in of_one) for each, of_one in found.items()
            }
            print(f"JPEGs of {name}, one worker, medians of {STARTS} processes each")
            for each, rate in rates.items():
                print(f"  {each:<12} {rate:8.1f} images/s a core  ratio {rate / rates['torchvision']:.2f}", flush=True)
            print(f"  scaled differs from exact by {scaled_difference(root):.2f} of 256 levels, the mean over pixels")


def child(name: str, folder: str, ours: Make, torchs: Make) -> None:
    """Prints the images a second of processor time that one contestant makes."""
    batches_counted = SETS[Path(folder).name][3]
    torch.set_num_threads(1)
    if name == "torchvision":
        repeated: ConcatDataset[Any] = ConcatDataset(
            [torchvisions(folder)] * REPEATED
        )  # a worker of its own an epoch is not what counts
        batches = torchs(repeated, 1, None)
    else:
        dataset = images(folder, Decode.exact, STORED) if name == "stored" else images(folder, Decode[name])
        batches = ours(dataset, 1, dataset.collate)
    for _ in range(WARM_UP):
        next(batches)
    began, cpu = time.perf_counter(), _cpu_s()
    for _ in range(batches_counted):
        next(batches)
    cpu, took = _cpu_s() - cpu, time.perf_counter() - began
    made = BATCH * batches_counted
    print(json.dumps({"images_per_cpu_s": made / cpu, "images_per_s": made / took}), flush=True)
    os._exit(0)


def images(folder: str, decode: Decode, stored: int | None = None) -> ImageFolder:
    cache = Cache(Path(folder).parent / "cache")
    crop = RandomCrop(SIZE, scale=(0.08, 1.0), ratio=(3 / 4, 4 / 3), flip=0.5)
    return ImageFolder(folder, crop, IMAGENET_MEAN, IMAGENET_STD, cache, decode=decode, stored=stored)


def torchvisions(folder: str) -> Any:
    """As torchvision's reference reads ImageNet with its `pil` backend."""
    from torchvision.datasets import ImageFolder as Folder
    from torchvision.transforms import v2

    changes = [v2.RandomResizedCrop(SIZE), v2.RandomHorizontalFlip(), v2.PILToTensor()]
    return Folder(
        folder, v2.Compose([*changes, v2.ToDtype(torch.float32, scale=True), v2.Normalize(IMAGENET_MEAN, IMAGENET_STD)])
    )


def write(root: Path, width: int, height: int, count: int) -> None:
    """Pieces of two photographs, with the noise that enlarging took off them, as JPEGs of quality 90."""
    import sklearn
    from PIL import Image

    photographs = Path(sklearn.__file__).parent / "datasets" / "images"
    draw = np.random.default_rng(0)
    for i in range(count):
        name = ("china", "flower")[i % 2]
        (root / name).mkdir(parents=True, exist_ok=True)
        with Image.open(photographs / f"{name}.jpg") as photograph:
            left, top = int(draw.integers(0, 71)), int(draw.integers(0, 1))
            part = photograph.crop((left, top, left + 569, top + 427)).resize((width, height), Image.Resampling.BICUBIC)
        pixels = np.asarray(part) + draw.normal(0, 3, (height, width, 3))
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(root / name / f"{i:04}.jpg", quality=90)


def scaled_difference(root: Path) -> float:
    """The mean difference of the samples that are decoded at a part of their size, in levels of 0..255."""
    exact, scaled = images(str(root), Decode.exact), images(str(root), Decode.scaled)
    std = torch.tensor(IMAGENET_STD)[:, None, None]
    found = []
    for index in range(0, len(exact), 5):
        torch.manual_seed(index)
        one = exact[index][0]
        torch.manual_seed(index)
        found.append(float(((scaled[index][0] - one) * std * 255).abs().mean()))
    return statistics.mean(found)


def _cpu_s() -> float:
    """Processor time that this process and those below it have used, seconds."""
    return sum(_of_process(pid) for pid in [os.getpid(), *below(os.getpid())])


def below(pid: int) -> list[int]:
    """The processes that this one started, and those that they did."""
    started = children(pid)
    return [*started, *(other for found in started for other in below(found))]


def _of_process(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

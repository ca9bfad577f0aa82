"""The digits ConvNet at given points in Ray Tune, with a training function as one writes it by hand: see bench/sweep.py.

    python bench/ray_tune.py POINTS OUT SLOTS [EVERY]

POINTS is a JSON file, [{"lr": …, "dropout": …}, …]. With EVERY, asynchronous successive halving has its first rung after
so many steps, and all trials are evaluated as often; without it all are trained to the end. OUT gets the seconds from the
first trial's beginning to the last one's end, the best accuracy and the steps taken. Needs `pip install 'ray[tune]'`.
"""

import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[0] = str(ROOT)

import ray
from ray import tune
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler

STEPS, BATCH, USUAL = 225, 64, 45  # of experiment=digits: steps, batch, steps between evaluations


def train(point: dict[str, Any]) -> None:
    began = time.time()
    import numpy as np
    import torch
    from torch.nn import functional as F

    from phalanx.train.data.augment import ShiftRotate
    from phalanx.train.data.digits import Digits
    from phalanx.train.loading.rng import Draws, integer
    from phalanx.train.models.convnet import ConvNet

    torch.set_num_threads(1)
    torch.manual_seed(0)
    digits, held_out = Digits("train"), Digits("held_out")
    images, labels = digits.__getitems__(np.arange(len(digits)))
    held_images, held_labels = held_out.__getitems__(np.arange(len(held_out)))
    model = ConvNet(10, point["dropout"])
    optimizer = torch.optim.Adam(model.parameters(), lr=point["lr"], fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    augment = ShiftRotate(2.0, 10.0)
    order = torch.cat([torch.randperm(len(digits)) for _ in range(STEPS * BATCH // len(digits) + 1)])
    for step in range(STEPS):
        chosen = order[step * BATCH : (step + 1) * BATCH]
        draws = Draws(integer(0, 1), np.arange(step * BATCH, (step + 1) * BATCH, dtype=np.int64))
        batch, targets = augment((images[chosen], labels[chosen]), draws)
        optimizer.zero_grad()
        F.cross_entropy(model(batch), targets).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        if (step + 1) % point["every"] == 0 or step + 1 == STEPS:
            model.eval()
            with torch.no_grad():
                accuracy = (model(held_images).argmax(1) == held_labels).float().mean().item()
            model.train()
            found = {"accuracy": accuracy, "step": step + 1, "began": began, "ended": time.time()}
            (Path(point["folder"]) / f"{point['number']}.json").write_text(json.dumps(found))
            tune.report(found)


def main() -> None:
    points, out, slots = json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2]), int(sys.argv[3])
    every = int(sys.argv[4]) if len(sys.argv) > 4 else None
    halving = ASHAScheduler(time_attr="step", max_t=STEPS, grace_period=every, reduction_factor=3) if every else None
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    ray.init(num_cpus=slots, include_dashboard=False, log_to_driver=False)
    with tempfile.TemporaryDirectory() as folder:
        shared = {"every": every or USUAL, "folder": folder}
        space = tune.grid_search([{**point, **shared, "number": number} for number, point in enumerate(points)])
        tuner = tune.Tuner(
            tune.with_resources(lambda config: train(config["point"]), {"cpu": 1}),
            param_space={"point": space},
            tune_config=tune.TuneConfig(
                metric="accuracy", mode="max", scheduler=halving or FIFOScheduler(), max_concurrent_trials=slots
            ),
            run_config=tune.RunConfig(storage_path=folder, verbose=0),
        )
        tuner.fit()
        found = [json.loads(path.read_text()) for path in Path(folder).glob("[0-9]*.json")]
    assert len(found) == len(points), "a trial reported nothing"
    took_s = max(trial["ended"] for trial in found) - min(trial["began"] for trial in found)
    finished = [trial["accuracy"] for trial in found if trial["step"] == STEPS]
    out.write_text(
        json.dumps({"took_s": took_s, "best": max(finished), "steps": sum(trial["step"] for trial in found)})
    )


if __name__ == "__main__":
    main()

"""What video has to beat: the experiment's own ConvNet where it sees one picture of each clip instead of its frames.

    python bench/baselines/video.py    # the same clips as experiment=video; a minute

It is trained for as many steps. `single_frame`: one frame of each clip, drawn anew each time, and in the evaluation all of
them, whose votes are added. `mean_difference`: the mean over time of the absolute differences of neighbouring frames.
`last_minus_first`: the difference of the last frame and the first.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[2])

import numpy as np
import torch
from torch.nn import functional as F

from phalanx.train.data.vision.moving_digits import MovingDigits
from phalanx.train.models.vision.video_net import VideoNet

EPOCHS, BATCH, RATE = 8, 32, 3e-3  # those of the experiment


def train_still(clips: torch.Tensor, labels: torch.Tensor) -> VideoNet:
    """The network, trained on a frame of each of the clips (n, 1, frames, h, w), drawn anew each time."""
    torch.manual_seed(0)
    model = VideoNet(1, 16, 16, 0.0)
    optimizer = torch.optim.AdamW(model.parameters(), RATE, weight_decay=0.01)
    steps = EPOCHS * len(clips) // BATCH
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps)
    for _ in range(steps):
        chosen, frame = torch.randint(len(clips), (BATCH,)), torch.randint(clips.shape[2], (BATCH,))
        F.cross_entropy(model(clips[chosen, :, frame].unsqueeze(2)), labels[chosen]).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
    return model.eval()


def accuracy(model: VideoNet, clips: torch.Tensor, labels: torch.Tensor) -> float:
    with torch.no_grad():
        votes = torch.stack([model(clips[:, :, i : i + 1]).softmax(1) for i in range(clips.shape[2])]).sum(0)
    return float((votes.argmax(1) == labels).double().mean())


def main() -> None:
    train, held_out = (MovingDigits(*which, 12, 24, 1, 0) for which in (("train", 4000), ("held_out", 800)))
    clips, labels = train.__getitems__(np.arange(len(train)))
    others, true = held_out.__getitems__(np.arange(len(held_out)))
    changes: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
        "single_frame": lambda clips: clips,
        "mean_difference": lambda clips: clips.diff(dim=2).abs().mean(2, keepdim=True),
        "last_minus_first": lambda clips: clips[:, :, -1:] - clips[:, :, :1],
    }
    found = {name: accuracy(train_still(see(clips), labels), see(others), true) for name, see in changes.items()}
    print(json.dumps({"chance": 1 / 16, **found}))


main()

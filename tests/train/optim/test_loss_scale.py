"""Loss scaling as torch.amp.GradScaler does it, without asking the host."""

import random

import torch

from phalanx.train.optim.precision import LossScale

CPU = torch.device("cpu")


def test_scale_follows_gradscaler_step_by_step() -> None:
    """Over growth after 2,000 good steps, backoff, and runs of overflows."""
    ours = LossScale(CPU)
    theirs = torch.amp.GradScaler("cpu", init_scale=65536.0, growth_interval=2000)
    weight = torch.nn.Parameter(torch.ones(1))
    optimizer = torch.optim.SGD([weight], lr=0.0)
    draw = random.Random(0)
    overflows = {draw.randrange(9000) for _ in range(6)} | {2500, 2501, 2502}
    for step in range(9000):
        overflowed = step in overflows
        weight.grad = torch.tensor([float("inf") if overflowed else 1.0])
        theirs.scale(torch.ones(()))
        theirs.step(optimizer)
        theirs.update()
        ours.update(torch.tensor(float(overflowed)))
        assert float(ours.factor) == theirs.get_scale(), step
    assert float(ours.factor) not in (65536.0, 0.0)


def test_the_scale_a_step_used_is_kept_apart_from_the_next_steps() -> None:
    scale = LossScale(CPU)
    scale.update(torch.tensor(1.0))
    assert (float(scale.used), float(scale.factor)) == (65536.0, 32768.0)
    scale.update(torch.tensor(0.0))
    assert (float(scale.used), float(scale.factor)) == (32768.0, 32768.0)

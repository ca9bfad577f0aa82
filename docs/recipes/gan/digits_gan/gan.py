import torch
from torch import nn
from torch.nn import functional as F

from phalanx import Ratio, Task


class Gan(nn.Module):
    """A generator and a discriminator of flat images. One model holds both: it is saved, and spread over ranks, as one."""

    def __init__(self, pixels, noise, width):
        super().__init__()
        self.noise = noise
        self.generator = nn.Sequential(
            nn.Linear(noise, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Linear(width, pixels)
        )
        self.discriminator = nn.Sequential(nn.Linear(pixels, width), nn.LeakyReLU(0.2), nn.Linear(width, 1))


class GanTask(Task):
    phases = {"d": r"^discriminator\.", "g": r"^generator\."}

    def ratios(self, model, batch):
        images = batch[0].flatten(1)
        fakes = model.generator(torch.randn(len(images), model.noise, device=images.device))
        if self.now.phase == "g":
            return {"loss": Ratio(F.softplus(-model.discriminator(fakes)).sum(), len(images))}
        real, fake = model.discriminator(images), model.discriminator(fakes.detach())
        loss = F.softplus(-real).sum() + F.softplus(fake).sum()
        return {"loss": Ratio(loss, len(images)), "found_real": Ratio((real > 0).sum(), len(images))}

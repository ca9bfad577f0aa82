"""Every precision against float64 on the CPU, and that it is the one that was asked for."""

import copy
import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from phalanx.config.schema import PrecisionName
from phalanx.exit.codes import ConfigError
from phalanx.train.models.convnet import ConvNet
from phalanx.train.optim.precision import LossScale, choose, set_up

pytestmark = [pytest.mark.gpu, pytest.mark.usefixtures("switches")]

# Relative error (L2) of the whole gradient: at least, since an error that is too small was not made in that precision,
# and at most. Then of the loss: at most. On CPUs, where the same formats can be had, the ConvNet's gradient is off by
# 4e-7 in float32, 1.4e-2 in float16 and 5e-2 in bfloat16: rounding moves the maximum of some pools and the sign of some
# ReLUs. TF32 rounds like float16. Autotuning may choose Winograd's algorithm, which costs float32 two digits.
BOUNDS = {
    PrecisionName.fp64: (0.0, 1e-12, 1e-13),
    PrecisionName.fp32: (1e-9, 1e-4, 1e-5),
    PrecisionName.tf32: (2e-4, 5e-2, 1e-3),
    PrecisionName.fp16: (1e-3, 5e-2, 1e-3),
    PrecisionName.bf16: (1e-2, 1.5e-1, 1e-2),
}


def relative_error(found: list[torch.Tensor], expected: list[torch.Tensor]) -> float:
    apart = sum(float((f.cpu().double() - e.double()).square().sum()) for f, e in zip(found, expected, strict=True))
    return math.sqrt(apart / sum(float(e.double().square().sum()) for e in expected))


def gradients(model: nn.Module, loss: torch.Tensor) -> list[torch.Tensor]:
    return list(torch.autograd.grad(loss, list(model.parameters())))


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("asked", list(BOUNDS))
def test_forward_and_backward_are_those_of_float64_within_the_precisions_error(
    asked: PrecisionName, channels_last: bool, device: torch.device
) -> None:
    try:
        precision = choose(asked, torch.cuda.get_device_capability(device))
    except ConfigError as error:
        pytest.skip(str(error))
    set_up(precision, deterministic=False)
    torch.manual_seed(0)
    reference = ConvNet(classes=10, dropout=0.0).double()
    images, labels = torch.randn(64, 1, 28, 28, dtype=torch.float64), torch.randint(0, 10, (64,))
    loss = F.cross_entropy(reference(images), labels)
    expected = gradients(reference, loss)

    model = copy.deepcopy(reference).to(device, precision.of(torch.float32))
    inputs = images.to(device, precision.of(torch.float32))
    if channels_last:
        model = model.to(memory_format=torch.channels_last)
        inputs = inputs.to(memory_format=torch.channels_last)
    scale = LossScale(device) if precision.scaled else None
    with precision.autocast(device):
        found_loss = F.cross_entropy(model(inputs), labels.to(device))
    found = gradients(model, found_loss if scale is None else found_loss * scale.factor)
    if scale is not None:
        found = [gradient / scale.factor for gradient in found]

    low, high, of_loss = BOUNDS[asked]
    assert low <= relative_error(found, expected) <= high
    assert found_loss.item() == pytest.approx(loss.item(), rel=of_loss)
    assert {gradient.dtype for gradient in found} == {precision.of(torch.float32)}


def test_auto_engages_the_tensor_cores_of_this_gpu(device: torch.device) -> None:
    capability = torch.cuda.get_device_capability(device)
    expected = "bf16" if capability >= (8, 0) else "fp16" if capability >= (7, 0) else "fp32"
    precision = choose(PrecisionName.auto, capability)
    assert precision.name == expected
    if precision.compute is not None:
        with precision.autocast(device):
            assert (torch.ones(16, 16, device=device) @ torch.ones(16, 16, device=device)).dtype == precision.compute

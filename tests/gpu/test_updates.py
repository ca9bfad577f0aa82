"""The optimizer's step on the device: as torch's, skipped without a word to the host, and never waiting for it."""

import copy
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

from phalanx.train.loading.prefetch import prefetch_to_device
from phalanx.train.optim.precision import LossScale
from phalanx.train.schedules.schedule import Cosine
from tests.train.built_parts import built, warmed_up
from tests.train.optim.updaters import STEPS, drawn, equal, make, small_model, spoiled, take_six_steps, trainable

pytestmark = [pytest.mark.gpu, pytest.mark.usefixtures("switches")]

FUSED: list[tuple[type[torch.optim.Optimizer], dict[str, Any]]] = [
    (torch.optim.Adam, {"lr": 0.01}),
    (torch.optim.AdamW, {"lr": 0.01, "weight_decay": 0.1}),
    (torch.optim.SGD, {"lr": 0.1}),
    (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "nesterov": True}),
]


@contextmanager
def no_wait_for_the_device() -> Iterator[None]:
    """Any operation that makes the host wait for the GPU raises."""
    torch.cuda.synchronize()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch says once that this is a prototype, which does not see every wait
        torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("kind", "options"), FUSED)
def test_fused_steps_are_those_of_a_loop_by_hand_on_the_cpu(
    kind: type[torch.optim.Optimizer], options: dict[str, Any], dtype: torch.dtype, device: torch.device
) -> None:
    by_hand = small_model(dtype)
    model = copy.deepcopy(by_hand).to(device)
    schedule = Cosine(warmup_steps=3, final=0.1)
    fused: Any = kind
    made = make(model, fused(trainable(model), fused=True, **options), schedule=schedule, clip_norm=2.0, device=device)
    reference = fused(trainable(by_hand), foreach=False, **options)
    for step in range(20):
        made.step(drawn(by_hand, step))
        for parameter, gradient in zip(by_hand.parameters(), drawn(by_hand, step), strict=True):
            parameter.grad = gradient
        torch.nn.utils.clip_grad_norm_(by_hand.parameters(), 2.0)
        reference.param_groups[0]["lr"] = made.updater.rates(step, step)["lr"]
        reference.step()
    assert int(made.updater.applied) == 20 < STEPS
    for ours, theirs in zip(model.parameters(), by_hand.parameters(), strict=True):
        torch.testing.assert_close(ours.cpu(), theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("kind", "options"), FUSED)
def test_a_skipped_step_changes_nothing_also_when_it_is_the_first(
    kind: type[torch.optim.Optimizer], options: dict[str, Any], device: torch.device
) -> None:
    fused: Any = kind
    plain, disturbed = small_model().to(device), small_model().to(device)
    one = make(plain, fused(trainable(plain), fused=True, **options), decay=0.9, device=device)
    other = make(disturbed, fused(trainable(disturbed), fused=True, **options), decay=0.9, device=device)
    take_six_steps(one, disturbed=other)
    assert equal(one.everything(), other.everything())


def test_the_scale_halves_on_the_device_and_the_host_is_not_asked(device: torch.device) -> None:
    model = small_model().to(device)
    scale = LossScale(device)
    optimizer = torch.optim.AdamW(trainable(model), lr=0.01, fused=True)
    made = make(model, optimizer, scale=scale, clip_norm=1.0, decay=0.9, device=device)
    finite = [gradient.to(device) for gradient in drawn(model, 0)]
    overflowed = [gradient.to(device) for gradient in spoiled(drawn(model, 0), float("inf"))]
    made.step(finite)
    before = made.everything()
    skips = []
    with no_wait_for_the_device():
        for gradients in (overflowed, overflowed, finite):
            for parameter, gradient in zip(trainable(model), gradients, strict=True):
                assert parameter.grad is not None
                parameter.grad.copy_(gradient)
            skips.append(made.updater.step(None)[1])
            if len(skips) == 2:
                still = [parameter.detach().clone() for parameter in trainable(model)]
    assert [bool(skipped) for skipped in skips] == [True, True, False]
    assert equal(still, list(before["weights"].values()))
    assert float(scale.factor) == 65536 / 4
    assert float(scale.used) == 65536 / 4
    assert int(made.updater.applied) == 2


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("micro_batch", ["null", "16"])
def test_between_two_logs_no_step_waits_for_the_device(precision: str, micro_batch: str) -> None:
    """Loading, copying, forward, backward, clipping, scaling, update and average, all queued and none awaited."""
    if precision == "bf16" and torch.cuda.get_device_capability() < (8, 0):
        pytest.skip("bf16 needs Ampere")
    overrides = [
        "experiment=digits",
        f"train.precision={precision}",
        f"train.micro_batch={micro_batch}",
        "train.clip_norm=1.0",
        "train.ema_decay=0.9",
        "world.device=cuda",
    ]
    _, world, parts = built(overrides)
    warmed_up(parts)
    works = prefetch_to_device(parts.loader.from_step(0), parts.mover, world.device)
    for _ in range(3):  # autotuning and the allocator's first blocks
        parts.step(next(works))
    with no_wait_for_the_device():
        taken = [parts.step(next(works)) for _ in range(8)]
    assert all(step.norm.isfinite() for step in taken)
    assert int(parts.state.updater.applied) == 11


def test_channels_last_reaches_the_layers_and_autotuning_is_on() -> None:
    _, _, parts = built(["experiment=digits", "world.device=cuda"])
    assert torch.backends.cudnn.benchmark
    model = parts.state.model
    seen: list[bool] = []
    layer = model.get_submodule("conv2")
    layer.register_forward_hook(
        lambda _, inputs, output: seen.extend(
            tensor.is_contiguous(memory_format=torch.channels_last) for tensor in (*inputs, output)
        )
    )
    warmed_up(parts)
    assert seen == [True, True]
    assert layer.get_parameter("weight").is_contiguous(memory_format=torch.channels_last)
    parts.step.strategy.gradients.norm()
    gradient = layer.get_parameter("weight").grad
    assert gradient is not None
    assert gradient.is_contiguous(memory_format=torch.channels_last)


def test_deterministic_turns_autotuning_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # so that it is put back
    built(["experiment=digits", "train.deterministic=true", "world.device=cuda"])
    assert not torch.backends.cudnn.benchmark
    assert torch.are_deterministic_algorithms_enabled()

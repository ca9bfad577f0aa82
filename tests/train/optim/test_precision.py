"""Which numbers a run computes in, and what torch is told."""

import pytest
import torch

from phalanx.config.schema import PrecisionName as P
from phalanx.exit.codes import ConfigError
from phalanx.train.optim.precision import choose, set_up

PASCAL, VOLTA, TURING, AMPERE, ADA, HOPPER = (6, 1), (7, 0), (7, 5), (8, 0), (8, 9), (9, 0)
BLACKWELL = (12, 0)
CPU = None


@pytest.mark.parametrize(
    ("capability", "name"),
    [
        (CPU, "fp32"),
        (PASCAL, "fp32"),
        (VOLTA, "fp16"),
        (TURING, "fp16"),
        (AMPERE, "bf16"),
        (ADA, "bf16"),
        (HOPPER, "bf16"),
        (BLACKWELL, "bf16"),
    ],
)
def test_auto_takes_what_engages_the_tensor_cores(capability: tuple[int, int] | None, name: str) -> None:
    assert choose(P.auto, capability).name == name


@pytest.mark.parametrize(
    ("asked", "capability", "instead"),
    [
        (P.fp16, CPU, "bf16"),
        (P.tf32, CPU, "fp32"),
        (P.fp16, PASCAL, "fp32"),
        (P.bf16, PASCAL, "fp32"),
        (P.tf32, PASCAL, "fp32"),
        (P.bf16, VOLTA, "fp16"),
        (P.bf16, TURING, "fp16"),
        (P.tf32, TURING, "fp16"),
    ],
)
def test_asking_for_what_the_hardware_lacks_names_what_it_has(
    asked: P, capability: tuple[int, int] | None, instead: str
) -> None:
    with pytest.raises(ConfigError, match=f"train.precision={asked.name} needs .* Type train.precision={instead}$"):
        choose(asked, capability)


def test_every_other_combination_is_given_as_asked() -> None:
    for capability in (PASCAL, VOLTA, TURING, AMPERE, ADA, HOPPER, BLACKWELL):
        assert choose(P.fp32, capability).name == "fp32"
        assert choose(P.fp64, capability).of(torch.float32) == torch.float64
    for capability in (AMPERE, ADA, HOPPER, BLACKWELL):
        for asked in (P.tf32, P.bf16, P.fp16):
            assert choose(asked, capability).name == asked.name
    assert choose(P.bf16, CPU).compute == torch.bfloat16
    assert choose(P.fp16, VOLTA).scaled
    assert not choose(P.bf16, AMPERE).scaled, "bfloat16 has float32's range"


def test_weights_stay_in_full_precision_under_autocast() -> None:
    for asked in (P.bf16, P.fp16, P.tf32):
        assert choose(asked, HOPPER).of(torch.float32) == torch.float32


@pytest.mark.parametrize(("asked", "tf32"), [(P.fp32, False), (P.tf32, True), (P.bf16, False), (P.fp16, False)])
def test_tf32_is_on_where_it_was_asked_for_only(asked: P, tf32: bool, switches: None) -> None:
    """In matrix products, convolutions and recurrent layers, and in both of torch's ways to ask."""
    set_up(choose(asked, HOPPER), deterministic=False)
    assert torch.backends.cuda.matmul.allow_tf32 is tf32
    assert torch.backends.cudnn.allow_tf32 is tf32
    assert (torch.backends.cuda.matmul.fp32_precision == "tf32") is tf32
    assert (torch.backends.cudnn.conv.fp32_precision == "tf32") is tf32  # type: ignore[attr-defined]
    assert (torch.backends.cudnn.rnn.fp32_precision == "tf32") is tf32  # type: ignore[attr-defined]


@pytest.mark.parametrize("deterministic", [True, False])
def test_cudnn_tries_its_algorithms_only_where_results_need_not_repeat(deterministic: bool, switches: None) -> None:
    set_up(choose(P.fp32, CPU), deterministic)
    assert torch.backends.cudnn.benchmark is not deterministic
    assert torch.are_deterministic_algorithms_enabled() is deterministic

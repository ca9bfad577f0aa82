"""Precision of training: fp32, tf32, bf16, fp16 with loss scaling, bf16 in weights, too, and fp64 as a reference."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from phalanx.config.schema import PrecisionName
from phalanx.exit.codes import ConfigError


@dataclass(frozen=True)
class Precision:
    """`compute` is the dtype of autocast's matrix products, if any.

    Parameters, buffers and batches keep their dtypes, also double, half and complex ones. Only `doubled` converts float32
    to float64 and complex64 to complex128, and `halved` converts float32 parameters to bfloat16, and with them gradients
    and the optimizer's state: not those of BatchNorms, whose running statistics need more digits, and no buffer.
    """

    name: str
    compute: torch.dtype | None
    scaled: bool
    doubled: bool = False
    halved: bool = False

    def of(self, dtype: torch.dtype) -> torch.dtype:
        """The dtype that `dtype` is converted to."""
        return _DOUBLE.get(dtype, dtype) if self.doubled else dtype

    def converted(self, model: nn.Module) -> nn.Module:
        """The model with numbers of 64 bits where `doubled`, and weights of 16 where `halved`; in place."""
        if self.doubled:
            model._apply(lambda tensor: tensor.to(self.of(tensor.dtype)))  # type: ignore[no-untyped-call]
        for module in model.modules() if self.halved else ():
            for parameter in module.parameters(recurse=False):
                if parameter.dtype == torch.float32 and not isinstance(module, _NormBase):
                    parameter.data = parameter.data.to(torch.bfloat16)
        return model

    def autocast(self, device: torch.device) -> AbstractContextManager[object]:
        if self.compute is None:
            return nullcontext()
        return torch.autocast(device.type, dtype=self.compute)


_DOUBLE = {torch.float32: torch.float64, torch.complex64: torch.complex128}
_NEEDS = {
    PrecisionName.tf32: (8, 0),
    PrecisionName.bf16: (8, 0),
    PrecisionName.bf16_pure: (8, 0),
    PrecisionName.fp16: (7, 0),
}
_CHOICES = {
    PrecisionName.fp32: Precision("fp32", None, False),
    PrecisionName.tf32: Precision("tf32", None, False),
    PrecisionName.bf16: Precision("bf16", torch.bfloat16, False),
    PrecisionName.bf16_pure: Precision("bf16_pure", torch.bfloat16, False, halved=True),
    PrecisionName.fp16: Precision("fp16", torch.float16, True),
    PrecisionName.fp64: Precision("fp64", None, False, doubled=True),
}


def choose(asked: PrecisionName, capability: tuple[int, int] | None) -> Precision:
    """The precision for a GPU of compute `capability`, or for a CPU where that is None.

    auto takes what engages the Tensor Cores: bf16 from Ampere (8.0) on, fp16 on Volta and Turing (7.x), fp32 on older
    GPUs and on CPUs. Raises ConfigError, naming the alternative, for what the hardware lacks.
    """
    if asked is PrecisionName.auto:
        return _CHOICES[_best(capability)]
    needs = _NEEDS.get(asked)
    if capability is None:
        if asked in (PrecisionName.tf32, PrecisionName.fp16):
            instead = "fp32" if asked is PrecisionName.tf32 else "bf16"
            raise ConfigError(
                f"train.precision={asked.name} needs a GPU, and this run is on CPUs. Type train.precision={instead}"
            )
    elif needs is not None and capability < needs:
        has, need = (".".join(map(str, version)) for version in (capability, needs))
        raise ConfigError(
            f"train.precision={asked.name} needs compute capability {need}, and this GPU has {has}. "
            f"Type train.precision={_best(capability).name}"
        )
    return _CHOICES[asked]


def _best(capability: tuple[int, int] | None) -> PrecisionName:
    if capability is None or capability < (7, 0):
        return PrecisionName.fp32
    return PrecisionName.bf16 if capability >= (8, 0) else PrecisionName.fp16


def set_up(precision: Precision, deterministic: bool) -> None:
    """Set torch's switches for this process: TF32 where asked only, cuDNN autotuning unless results must repeat."""
    tf32 = precision.name == "tf32"
    # Torch's older switches set the newer ones as well; after setting the newer ones alone, reading the older raises.
    torch.set_float32_matmul_precision("high" if tf32 else "highest")
    torch.backends.cudnn.allow_tf32 = tf32
    torch.backends.cudnn.benchmark = not deterministic
    if deterministic:  # asked even for False it would import torch's compiler, which takes a second
        torch.use_deterministic_algorithms(True)


class LossScale:
    """Loss scaling for fp16 (Micikevicius et al. 2018, section 3.2), all on the device.

    The factor halves after a step that overflowed and doubles after 2,000 that did not. The ranks share the decision
    because it is made on the reduced gradient, which they all hold.
    """

    def __init__(self, device: torch.device) -> None:
        self.factor = torch.full((), 65536.0, device=device)
        self.used = self.factor.clone()  # in the last step
        self._since = torch.zeros((), dtype=torch.int32, device=device)

    def update(self, overflowed: torch.Tensor) -> None:
        """Follow one step; `overflowed` is a float tensor, 1 where the step was skipped."""
        self.used = self.factor.clone()
        torch._amp_update_scale_(self.factor, self._since, overflowed, 2.0, 0.5, 2000)

    def state(self) -> dict[str, torch.Tensor]:
        return {"factor": self.factor, "since": self._since}

    def load(self, state: dict[str, torch.Tensor]) -> None:
        self.factor.copy_(state["factor"])
        self._since.copy_(state["since"])

"""What stands in a config for a class's arguments reaches it as what its author annotated, or is refused in words."""

import functools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum, IntEnum
from pathlib import Path
from typing import Any, Literal, NotRequired, Protocol, TypedDict

import numpy as np
import pytest
import torch
from torch import nn

from phalanx.compose.compose import compose
from phalanx.config.annotations import as_annotated
from phalanx.config.overrides import shown
from phalanx.exit.codes import ConfigError
from phalanx.targets.instantiate import Targets
from phalanx.train.engine.parts.config_targets import check_targets, targets


class Colour(Enum):
    red = "r"
    blue = "b"


class Size(IntEnum):
    small = 1
    large = 2


class Shape(TypedDict):
    width: int
    depth: NotRequired[int]


class Speaks(Protocol):
    def speak(self) -> str: ...


@dataclass(frozen=True)
class Block:
    width: int
    colour: Colour = Colour.red


class Taking(nn.Module):
    """Takes what YAML has no words for."""

    def __init__(  # type: ignore[no-untyped-def]
        self,
        colour: Colour | None = None,
        sizes: list[Size] | None = None,
        dtype: torch.dtype = torch.float32,
        open_dtype=None,
        device: torch.device | None = None,
        shape: Shape | None = None,
        block: Block | None = None,
        speaker: Speaks | str = "nobody",
        weight: torch.Tensor | None = None,
        table: "np.ndarray[Any, Any] | None" = None,
        folder: Path = Path(),
        kernel: tuple[int, int] = (1, 1),
        stop: set[str] = frozenset(),  # type: ignore[assignment]
        angle: complex = 0,
        layer: Callable[..., nn.Module] = nn.ReLU,
        norm: type[nn.Module] = nn.LayerNorm,
        mode: Literal["sum", "mean"] = "sum",
        many: Iterable[float] = (),
        by_name: dict[str, Colour] | None = None,
        lost: "NoSuchName" = None,  # type: ignore[name-defined]  # noqa: F821  -- for type checkers alone
    ) -> None:
        super().__init__()
        self.given = {name: value for name, value in locals().items() if name not in ("self", "__class__")}


HERE = f"{__name__}.Taking"


def taken(**arguments: Any) -> dict[str, Any]:
    """What `Taking` gets for the arguments of a config."""
    builder, node = Targets((nn.Module,), None), {"_target_": HERE, **arguments}
    builder.check(node, "model", nn.Module)
    return {name: builder.build(node, "model", Taking).given[name] for name in arguments}


@pytest.mark.parametrize(
    ("name", "typed", "found"),
    [
        ("colour", "red", Colour.red),
        ("colour", "Colour.blue", Colour.blue),
        ("colour", "b", Colour.blue),
        ("colour", None, None),
        ("sizes", ["small", 2], [Size.small, Size.large]),
        ("dtype", "torch.bfloat16", torch.bfloat16),
        ("dtype", "float64", torch.float64),
        ("open_dtype", "torch.bfloat16", torch.bfloat16),
        ("open_dtype", "torch.nothing", "torch.nothing"),
        ("device", "cpu", torch.device("cpu")),
        ("shape", {"width": 3}, {"width": 3}),
        ("block", {"width": 3, "colour": "blue"}, Block(3, Colour.blue)),
        ("speaker", "a parrot", "a parrot"),
        ("folder", "a/b", Path("a/b")),
        ("kernel", [3, 5], (3, 5)),
        ("stop", ["the", "a"], {"the", "a"}),
        ("angle", "1+2j", 1 + 2j),
        ("mode", "mean", "mean"),
        ("many", [1, 2.5], [1, 2.5]),
        ("by_name", {"sky": "blue"}, {"sky": Colour.blue}),
        ("lost", [1], [1]),
    ],
)
def test_an_argument_gets_what_its_annotation_says(name: str, typed: object, found: object) -> None:
    given = taken(**{name: typed})[name]
    assert (given, type(given)) == (found, type(found))


def test_lists_become_tensors_and_arrays_and_what_is_partial_is_not_called_yet() -> None:
    given = taken(
        weight=[0.25, 0.75],
        table=[[1, 2]],
        layer={"_target_": "torch.nn.LeakyReLU", "_partial_": True, "negative_slope": 0.5},
        norm={"_target_": "torch.nn.BatchNorm1d", "_partial_": True},
    )
    assert torch.equal(given["weight"], torch.tensor([0.25, 0.75]))
    assert np.array_equal(given["table"], [[1, 2]])
    assert isinstance(given["layer"], functools.partial)
    assert given["layer"]().negative_slope == 0.5
    assert given["norm"] is nn.BatchNorm1d


@pytest.mark.parametrize(
    ("name", "typed", "says"),
    [
        ("colour", "green", "Type model.colour= and a value such as red or blue or null"),
        ("sizes", ["huge"], "a value such as"),
        ("dtype", "torch.nn", "Type model.dtype= and a value such as torch.float32"),
        ("device", "toaster", "a value such as cpu or null"),
        ("shape", {"depth": 3}, "a value such as {width: 1, depth: 1} or null"),
        ("shape", {"width": "wide"}, "a value such as {width: 1"),
        ("block", {"colour": "red"}, "a value such as {width: 1, colour: red or blue}"),
        ("weight", "heavy", "a value such as [1, 2] or null"),
        ("kernel", [3, "x"], "a value such as [1, 2]"),
        ("layer", "torch.nn.GELU", "a value such as {_target_: package.module.Class, _partial_: true}"),
        ("norm", 3, "a value such as {_target_: package.module.Class, _partial_: true}"),
        ("mode", "max", "a value such as sum, mean"),
    ],
)
def test_what_does_not_fit_is_told_with_a_value_that_would(name: str, typed: object, says: str) -> None:
    with pytest.raises(ConfigError) as raised:
        taken(**{name: typed})
    assert f"model.{name}={shown(typed)} does not fit" in str(raised.value)
    assert says in str(raised.value)


def test_torchvisions_weights_are_named_as_torchvision_names_them() -> None:
    from torchvision.models import ResNet18_Weights  # a second, which each process that collects tests would take

    config = compose(["model=resnet18", "+model.weights=IMAGENET1K_V1"]).config
    check_targets(config, targets(config, foreign=False))
    assert as_annotated("ResNet18_Weights.DEFAULT", ResNet18_Weights | None) is ResNet18_Weights.IMAGENET1K_V1
    config = compose(["model=resnet18", "+model.weights=IMAGENET1K_V9"]).config
    with pytest.raises(ConfigError, match="such as IMAGENET1K_V1 or DEFAULT or null"):
        check_targets(config, targets(config, foreign=False))


def test_a_model_itself_is_never_partial() -> None:
    with pytest.raises(ConfigError, match=r"model\._partial_=true makes no Module.* Leave it out"):
        taken(_partial_=True)

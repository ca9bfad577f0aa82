"""A checkpoint's state of other shapes is refused in words: a fused kernel would read past its end."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from phalanx.exit.codes import ConfigError
from phalanx.train.optim import optimizer_state

SHAPES: dict[str, tuple[int, ...]] = {"exp_avg": (1,), "exp_avg_sq": (0,), "step": (0,), "max_exp_avg_sq": (4, 2)}


def stepped(kind: Callable[..., torch.optim.Optimizer], **arguments: Any) -> torch.optim.Optimizer:
    """An optimizer of one matrix, after a step."""
    weight = nn.Parameter(torch.ones(2, 4))
    optimizer = kind([weight], fused=True, **arguments)
    weight.sum().backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    return optimizer


@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.AdamW])
@pytest.mark.parametrize("name", SHAPES)
def test_state_of_another_shape_is_refused_and_the_optimizer_left_as_it_is(
    kind: type[torch.optim.Optimizer], name: str
) -> None:
    optimizer = stepped(kind, lr=0.1, amsgrad=True)
    state = optimizer_state.of(optimizer, inner=False)
    state["state"][0][name] = torch.zeros(SHAPES[name])
    before = optimizer.state_dict()["state"][0][name].clone()
    with pytest.raises(ConfigError, match=rf"{name} in the state of {kind.__name__} is .*aside"):
        optimizer_state.load(optimizer, state)
    assert torch.equal(optimizer.state_dict()["state"][0][name], before)


@pytest.mark.parametrize(
    "state", [{}, {"param_groups": 5, "state": {}}, {"param_groups": [{"params": [0]}], "state": [1]}]
)
def test_state_that_is_none_is_refused(state: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        optimizer_state.load(stepped(torch.optim.Adam, lr=0.1), state)


def test_sound_state_of_every_fused_optimizer_is_taken() -> None:
    for kind, more in ((torch.optim.Adam, 0.0), (torch.optim.SGD, 0.9), (torch.optim.Adagrad, 0.0)):
        given = {"momentum": more} if more else {}
        optimizer_state.load(
            stepped(kind, lr=0.1, **given), optimizer_state.of(stepped(kind, lr=0.1, **given), inner=False)
        )

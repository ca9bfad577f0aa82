"""train.checkpoint_activations: blocks computed twice keep less, and train to the same bits."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from phalanx.compose.compose import compose
from phalanx.config.limits import check
from phalanx.exit.codes import ConfigError
from phalanx.train.memory.activation_checkpointing import checkpoint_activations
from tests.ranks import DDP, Starter
from tests.train.faulty_parts import CLASSES, WIDTH
from tests.train.small_runs import planted, undisturbed_and_killed


class Block(nn.Module):
    """With statistics, dropout and a hook, each of which a second forward would move; counts its calls in a buffer."""

    def __init__(self, width: int = 16, dropout: float = 0.2) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Linear(width, 4 * width), nn.BatchNorm1d(4 * width), nn.ReLU(), nn.Dropout(dropout)
        )
        self.last = nn.Linear(4 * width, width)
        self.register_buffer("calls", torch.zeros(()))
        self.calls: torch.Tensor
        self.hooked = 0
        self.register_forward_hook(self.count)

    def count(self, *_: Any) -> None:
        self.hooked += 1

    def forward(self, inputs: torch.Tensor, scale: float) -> torch.Tensor:
        self.calls += 1
        hidden: torch.Tensor = self.last(self.body(inputs)) * (1 + 0.1 / self.calls)
        return inputs + scale * hidden


class Deep(nn.Module):
    """`skips`: a block takes part in every other forward alone."""

    def __init__(self, blocks: int = 4, skips: bool = False, dropout: float = 0.2) -> None:
        super().__init__()
        self.first = nn.Linear(WIDTH, 16)
        self.blocks = nn.ModuleList(Block(dropout=dropout) for _ in range(blocks))
        self.last = nn.Linear(16, CLASSES)
        self.skips, self.calls = skips, 0

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        hidden = self.first(inputs)
        for i, block in enumerate(self.blocks):
            if not (self.skips and i == 1 and self.calls % 2):
                hidden = block(hidden, scale=0.5)
        logits: torch.Tensor = self.last(hidden)
        return logits


def run(**options: Any) -> tuple[str, ...]:
    return (
        *(word for word in planted(**options) if not word.startswith("model")),
        *("~model", "+model._target_=tests.train.memory.test_activation_checkpointing.Deep"),
        *(
            "train.micro_batch=2",
            "train.steps=8",
            "train.epochs=null",
            "optim=adam",
            "log.every=1",
            "checkpoint.every=3",
        ),
        *("data.eval={_target_: tests.train.faulty_parts.Planted, samples: 20}", "eval.batch=8", "eval.every=4"),
    )


@pytest.mark.parametrize(
    ("ranks", "knobs"), [(1, ()), (2, (DDP,)), (2, (DDP, "parallel.find_unused=true", "+model.skips=true"))]
)
def test_the_bits_are_those_of_a_run_without(starter: Starter, ranks: int, knobs: tuple[str, ...]) -> None:
    plain = starter.train(ranks, *run(), *knobs, name="plain")
    for which in ("all", "2", "'body|last'"):
        found = starter.train(ranks, *run(), *knobs, f"train.checkpoint_activations={which}", name=f"n{len(which)}")
        assert found.sha256 == plain.sha256, which
        assert found.timeless() == plain.timeless()


def test_it_is_killed_and_continues_to_the_same_bits_with_and_without(starter: Starter) -> None:
    words = run(kill_at=8 * 4)
    undisturbed, killed = undisturbed_and_killed(starter, 2, *words, "train.checkpoint_activations=all")
    assert killed.sha256 == undisturbed.sha256
    assert starter.train(2, *words, name="plain").sha256 == undisturbed.sha256


def kept(model: nn.Module) -> int:
    """Bytes that a forward keeps for the backward, each storage once."""
    storages: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    held = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = F.cross_entropy(model(torch.ones(32, WIDTH)), torch.zeros(32, dtype=torch.long))
        torch.autograd.backward(loss)
    return sum(size for storage, size in storages.items() if storage not in held)


def test_less_is_kept_for_the_backward() -> None:
    without = kept(Deep())
    for which, most in (("all", 0.1), (2, 0.6), ("blocks", 0.1)):
        model = Deep()
        checkpoint_activations(model, which)
        assert kept(model) < most * without


def test_a_second_forward_moves_neither_buffers_nor_hooks_nor_generators() -> None:
    models = []
    for which in (None, "all"):
        torch.manual_seed(0)
        model = Deep()
        checkpoint_activations(model, which)
        torch.autograd.backward([model(torch.ones(4, WIDTH)).sum(), model(torch.zeros(4, WIDTH)).sum()])
        models.append((model, torch.rand(1)))
    (plain, drew), (other, drew_too) = models
    assert torch.equal(drew, drew_too)
    for name, tensor in plain.state_dict().items():
        assert torch.equal(other.state_dict()[name], tensor), name
    for one, its in zip(plain.parameters(), other.parameters(), strict=True):
        assert one.grad is not None
        assert its.grad is not None
        assert torch.equal(one.grad, its.grad)
    assert [block.hooked for block in other.blocks] == [2] * 4


def resnet() -> nn.Module:
    from torchvision.models import resnet18

    model: nn.Module = resnet18()
    return model


@pytest.mark.parametrize(
    ("make", "which", "found"),
    [
        (Deep, "all", ["blocks.0", "blocks.1", "blocks.2", "blocks.3"]),
        (Deep, 1, ["blocks.0", "blocks.1", "blocks.2", "blocks.3"]),
        (Deep, 3, ["blocks.0", "blocks.3"]),
        (Deep, r"blocks\.\d\.body$", [f"blocks.{i}.body" for i in range(4)]),
        (Deep, "blocks", [f"blocks.{i}" for i in range(4)]),
        (resnet, 4, ["layer1.0", "layer3.0"]),
        (lambda: nn.ModuleDict({"a": nn.ModuleList([nn.Sequential(Block(), Block())])}), "all", ["a.0.0", "a.0.1"]),
        (lambda: nn.ModuleList(nn.Sequential(nn.Linear(2, 2), nn.ReLU()) for _ in range(3)), 2, ["0", "2"]),
    ],
)
def test_blocks_are_found(make: Callable[[], nn.Module], which: str | int, found: list[str]) -> None:
    assert checkpoint_activations(make(), which) == found


def test_a_number_that_is_typed_is_a_distance_and_no_expression() -> None:
    """blocks.2 is not every second block."""
    assert compose(["train.checkpoint_activations=2"]).config.train.checkpoint_activations == 2
    with pytest.raises(ConfigError, match="=0 is no distance of blocks"):
        check(compose(["train.checkpoint_activations=0"]).config, ranks=1)


def test_what_matches_nothing_is_told_with_the_names_there_are() -> None:
    with pytest.raises(ConfigError, match=r"=all finds no blocks, .* names of modules: 0, 1"):
        checkpoint_activations(nn.Sequential(nn.Linear(2, 2), nn.ReLU()), "all")
    with pytest.raises(ConfigError, match="=layers matches the name of no module"):
        checkpoint_activations(Deep(), "layers")
    with pytest.raises(ConfigError, match="no regular expression"):
        checkpoint_activations(Deep(), "(")


@pytest.mark.slow
def test_compiled(starter: Starter) -> None:
    words = (*run(), "train.compile=true", "train.precision=fp64", "train.steps=3", "data.eval=null", "optim=sgd")
    # The compiler draws dropout otherwise for each graph, and BatchNorm over two samples is too steep to compare.
    words = (*words, "+model.dropout=0", "train.micro_batch=8")
    plain = starter.train(1, *words, name="plain").weights()
    other = starter.train(1, *words, "train.checkpoint_activations=all", name="all").weights()
    for name, tensor in plain.items():
        torch.testing.assert_close(other[name], tensor, rtol=0, atol=1e-9)

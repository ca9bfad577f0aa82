"""Models that are not tame: each does one thing that models out there do and that a trainer may break.

All of them take planted samples, shape (b, WIDTH), and answer with logits, shape (b, CLASSES).
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from tests.train.faulty_parts import CLASSES, WIDTH

HIDDEN = 6


class Two(nn.Module):
    """Two layers, and whatever a member does between them."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(WIDTH, HIDDEN)
        self.last = nn.Linear(HIDDEN, CLASSES)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.last(self.between(self.first(inputs).tanh()))
        return logits

    def between(self, hidden: torch.Tensor) -> Any:
        return hidden


class FrozenBackbone(Two):
    """Its backbone is in eval mode and does not train; BatchNorm's statistics there are the author's."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Linear(HIDDEN, HIDDEN), nn.BatchNorm1d(HIDDEN), nn.Dropout(0.5))
        self.backbone.requires_grad_(False).eval()

    def between(self, hidden: torch.Tensor) -> Any:
        return hidden + self.backbone(hidden)


class PretrainedInEval(Two):
    """A part comes in eval mode, as `from_pretrained` leaves it, and trains."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(HIDDEN, HIDDEN), nn.BatchNorm1d(HIDDEN), nn.Dropout(0.5)).eval()

    def between(self, hidden: torch.Tensor) -> Any:
        return hidden + self.body(hidden)


class WholeInEval(Two):
    """All of it comes in eval mode, as `from_pretrained` leaves it, and a part does not train."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Linear(HIDDEN, HIDDEN), nn.BatchNorm1d(HIDDEN)).requires_grad_(False)
        self.body = nn.Sequential(nn.Linear(HIDDEN, HIDDEN), nn.BatchNorm1d(HIDDEN), nn.Dropout(0.5))
        self.eval()

    def between(self, hidden: torch.Tensor) -> Any:
        return hidden + self.body(self.backbone(hidden))


class OwnTrain(Two):
    """Overrides `train` to keep its BatchNorm as it is."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(HIDDEN).eval()

    def train(self, mode: bool = True) -> "OwnTrain":
        super().train(mode)
        self.norm.eval()
        return self

    def between(self, hidden: torch.Tensor) -> Any:
        return hidden + self.norm(hidden)


class Norms(Two):
    """BatchNorm with running statistics, and dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.Sequential(nn.BatchNorm1d(HIDDEN), nn.Dropout(0.2))

    def between(self, hidden: torch.Tensor) -> Any:
        return self.norm(hidden)


class Queue(Two):
    """A queue of earlier features, written in place and read in training: each rank's is its own (He et al. 2020)."""

    def __init__(self, persistent: bool = True) -> None:
        super().__init__()
        self.register_buffer("queue", torch.zeros(8, HIDDEN), persistent=persistent)
        self.register_buffer("place", torch.zeros((), dtype=torch.int64), persistent=persistent)
        self.queue: torch.Tensor
        self.place: torch.Tensor

    def between(self, hidden: torch.Tensor) -> Any:
        mixed = hidden + 0.5 * self.queue.mean(0)
        if self.training:
            with torch.no_grad():
                self.queue[int(self.place) % 8] = hidden.mean(0)
                self.place += 1
        return mixed


class HiddenQueue(Queue):
    """The same in buffers that no state_dict holds."""

    def __init__(self) -> None:
        super().__init__(persistent=False)


class Centre(Two):
    """A running centre that is assigned anew in each forward, in evaluations, too (Caron et al. 2021)."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("centre", torch.zeros(HIDDEN))
        self.centre: torch.Tensor

    def between(self, hidden: torch.Tensor) -> Any:
        centred = hidden - self.centre
        self.centre = 0.9 * self.centre + 0.1 * hidden.detach().mean(0)
        return centred


class Codebook(Two):
    """A codebook that follows what it codes, through `.data` (van den Oord et al. 2017)."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("codes", torch.randn(4, HIDDEN))
        self.codes: torch.Tensor

    def between(self, hidden: torch.Tensor) -> Any:
        nearest = torch.cdist(hidden.detach(), self.codes).argmin(1)
        coded = self.codes[nearest]
        if self.training:
            for code in sorted(set(nearest.tolist())):
                self.codes.data[code] += 0.1 * (hidden.detach()[nearest == code].mean(0) - self.codes[code])
        return hidden + (coded - hidden).detach()


class Growing(Two):
    """A memory that grows by a row a forward in training until it has 5."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("memory", torch.zeros(0, HIDDEN))
        self.memory: torch.Tensor

    def between(self, hidden: torch.Tensor) -> Any:
        if self.training and len(self.memory) < 5:
            self.memory = torch.cat([self.memory, hidden.detach()[:1]])
        return hidden + self.memory.sum(0)


class Late(Two):
    """Buffers that appear in the first forward, one of them with the weights; one is dropped and made anew each time."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mask", None)
        self.mask: torch.Tensor | None

    def between(self, hidden: torch.Tensor) -> Any:
        if "slopes" not in self._buffers:
            self.register_buffer("slopes", torch.arange(1.0, HIDDEN + 1), persistent=False)
            self.register_buffer("offset", hidden.detach().mean(0))
        if self.mask is not None:
            self.mask = None
        else:
            self.mask = torch.ones(HIDDEN)
        return hidden * self.get_buffer("slopes") + self.get_buffer("offset")


class Expanded(Two):
    """A buffer whose elements share one place in memory."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("scale", torch.full((1, 1), 0.5).expand(1, HIDDEN))
        self.scale: torch.Tensor

    def between(self, hidden: torch.Tensor) -> Any:
        return hidden * self.scale


class Filled(Two):
    """A table that the first forward fills, with a flag in Python beside it."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("table", torch.zeros(HIDDEN), persistent=False)
        self.known = False
        self.table: torch.Tensor

    def between(self, hidden: torch.Tensor) -> Any:
        if not self.known:
            self.table.copy_(torch.arange(1.0, HIDDEN + 1))
            self.known = True
        return hidden * self.table


class Counting(Two):
    """Counts its calls in Python and keeps what it saw, in a list, a dict and an object of its own."""

    class Seen:
        def __init__(self) -> None:
            self.calls = 0

    def __init__(self) -> None:
        super().__init__()
        self.history: list[float] = []
        self.kept: dict[str, torch.Tensor] = {}
        self.seen = Counting.Seen()

    def between(self, hidden: torch.Tensor) -> Any:
        self.seen.calls += self.training
        self.history.append(float(hidden.detach().mean()))
        self.kept["hidden"] = hidden  # with its graph
        return hidden * (1 + 1 / self.seen.calls if self.seen.calls and self.training else 1)


class Cached(Two):
    """Keeps what it made in an evaluation as in training, outside of any buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.cache: dict[int, torch.Tensor] = {}

    def between(self, hidden: torch.Tensor) -> Any:
        rows = len(hidden)
        if rows not in self.cache:
            self.cache[rows] = torch.linspace(0.5, 1.5, rows)[:, None]
        return hidden * self.cache[rows]


class Hooked(Two):
    """A hook that a closure makes hands features on."""

    def __init__(self) -> None:
        super().__init__()
        features: dict[str, torch.Tensor] = {}

        def keep(module: nn.Module, inputs: Any, output: torch.Tensor) -> None:
            features["first"] = output

        self.features = features
        self.first.register_forward_hook(keep)

    def between(self, hidden: torch.Tensor) -> Any:
        return hidden + self.features.pop("first")


class OwnGenerator(Two):
    """Draws from a generator of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.generator = torch.Generator().manual_seed(1)

    def between(self, hidden: torch.Tensor) -> Any:
        return hidden + 0.1 * torch.randn(hidden.shape, generator=self.generator) if self.training else hidden


class Complex(Two):
    """A layer in Fourier space with complex weights and a complex buffer (Li et al. 2021)."""

    def __init__(self) -> None:
        super().__init__()
        self.spectrum = nn.Parameter(torch.ones(HIDDEN // 2 + 1, dtype=torch.complex64))
        self.register_buffer("phase", torch.polar(torch.ones(HIDDEN // 2 + 1), torch.arange(HIDDEN // 2 + 1.0)))
        self.phase: torch.Tensor

    def between(self, hidden: torch.Tensor) -> Any:
        return hidden + torch.fft.irfft(torch.fft.rfft(hidden) * self.spectrum * self.phase, n=HIDDEN)


class Mixed(Two):
    """Parts in double and in bfloat16, with a number that float32 cannot hold."""

    def __init__(self) -> None:
        super().__init__()
        self.fine = nn.Linear(HIDDEN, HIDDEN).double()
        self.coarse = nn.Linear(HIDDEN, HIDDEN).bfloat16()
        self.register_buffer("since", torch.tensor(1e8 + 1, dtype=torch.float64))

    def between(self, hidden: torch.Tensor) -> Any:
        fine = self.fine(hidden.double()).to(hidden.dtype)
        return hidden + fine + self.coarse(hidden.bfloat16()).to(hidden.dtype)


class Tied(Two):
    """Two layers with one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.there = nn.Linear(HIDDEN, HIDDEN)
        self.back = nn.Linear(HIDDEN, HIDDEN)
        self.back.weight = self.there.weight

    def between(self, hidden: torch.Tensor) -> Any:
        return self.back(self.there(hidden).relu())


class ExtraState(Two):
    """Keeps a count of samples in its extra state and trains by it."""

    def __init__(self) -> None:
        super().__init__()
        self.samples = 0

    def get_extra_state(self) -> dict[str, Any]:
        return {"samples": self.samples, "seen": torch.tensor(self.samples), "notes": ["plain", (1, None)]}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        assert int(state["seen"]) == state["samples"]
        assert state["notes"] == ["plain", (1, None)]
        self.samples = state["samples"]

    def between(self, hidden: torch.Tensor) -> Any:
        self.samples += len(hidden) if self.training else 0
        return hidden * (1 + 1 / (1 + self.samples))


class Copies(Two):
    """Its `state_dict` takes no arguments and returns copies."""

    def state_dict(self) -> dict[str, torch.Tensor]:  # type: ignore[override]
        return {name: tensor.clone() for name, tensor in super().state_dict().items()}


class ComesAndGoes(Two):
    """A branch that takes part where a sample's first number is large. Needs parallel.find_unused=true."""

    def __init__(self) -> None:
        super().__init__()
        self.branch = nn.Linear(WIDTH, CLASSES)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        logits = super().forward(inputs)
        return logits + self.branch(inputs) if bool((inputs[:, 0] > 1.0).any()) else logits


class Differentiating(Two):
    """Its answer has the gradient of an energy in it; `careful` switches autograd on for it."""

    careful = True

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        with torch.set_grad_enabled(self.careful or torch.is_grad_enabled()):
            inputs = inputs.detach().requires_grad_()
            logits = super().forward(inputs)
            (force,) = torch.autograd.grad(logits.square().sum(), inputs, create_graph=self.training)
        return logits + force[:, :CLASSES]


class DifferentiatingInPassing(Differentiating):
    """The same by an author who never switched autograd off."""

    careful = False


class Viewing(Two):
    """`.view` after a convolution, and after two."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, HIDDEN, 1))

    def between(self, hidden: torch.Tensor) -> Any:
        images = torch.cat([hidden, hidden], 1).view(-1, 3, 2, 2)
        return self.layers(images).view(len(hidden), -1)[:, :HIDDEN]


class Imaging(Two):
    """Convolutions whose answer is reshaped, whichever order it lies in."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, HIDDEN, 2))

    def between(self, hidden: torch.Tensor) -> Any:
        return self.layers(torch.cat([hidden, hidden], 1).reshape(-1, 3, 2, 2)).flatten(1)


class Filming(Two):
    """Convolutions in one and in three dimensions, and a parameter of four that belongs to none."""

    def __init__(self) -> None:
        super().__init__()
        self.film = nn.Conv3d(1, 2, 1)
        self.line = nn.Conv1d(1, 1, 1)
        self.pairs = nn.Parameter(torch.ones(2, 3, 1, 2))

    def between(self, hidden: torch.Tensor) -> Any:
        filmed = self.film(hidden.view(-1, 1, 1, 2, 3)).mean(1).view(-1, HIDDEN)
        weight = torch.view_as_complex(self.pairs).abs().view(HIDDEN)
        return filmed * weight + self.line(hidden[:, None]).view(-1, HIDDEN)


class Renormed(Two):
    """Bounds its weights in each forward, in evaluations, too (Lawhern et al. 2018)."""

    def between(self, hidden: torch.Tensor) -> Any:
        self.last.weight.data = torch.renorm(self.last.weight.data, 2, 0, 0.5)
        return hidden


class OldWeightNorm(Two):
    """A weight that a hook computes before each forward and sets as an attribute, as older weight_norm does."""

    def __init__(self) -> None:
        super().__init__()
        self.normed = nn.Linear(HIDDEN, HIDDEN)
        weight = self.normed.weight
        del self.normed.weight
        self.normed.direction = nn.Parameter(weight.detach().clone())
        self.normed.register_forward_pre_hook(_set_weight)
        _set_weight(self.normed, ())

    def between(self, hidden: torch.Tensor) -> Any:
        return self.normed(hidden)


def _set_weight(module: nn.Module, inputs: object) -> None:
    module.weight = F.normalize(module.get_parameter("direction"), dim=1)


class Menagerie(nn.Module):
    """Many of them in one: what a test that has one run for all of them trains."""

    def __init__(self) -> None:
        super().__init__()
        self.members = nn.ModuleList(
            made()
            for made in (FrozenBackbone, OwnTrain, Norms, Queue, HiddenQueue, Centre, Codebook, Growing, Late, Expanded)
        )
        self.members.extend(made() for made in (Filled, Counting, Cached, Hooked, Tied, ExtraState, Renormed))
        self.branch = ComesAndGoes()

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = torch.stack([member(inputs) for member in self.members]).mean(0) + self.branch(inputs)
        return logits


ZOO: dict[str, Callable[[], nn.Module]] = {
    made.__name__: made
    for made in (
        FrozenBackbone,
        PretrainedInEval,
        OwnTrain,
        Norms,
        Queue,
        HiddenQueue,
        Centre,
        Codebook,
        Growing,
        Late,
        Expanded,
        Filled,
        Counting,
        Cached,
        Hooked,
        OwnGenerator,
        Complex,
        Mixed,
        Tied,
        ExtraState,
        Copies,
        ComesAndGoes,
        Differentiating,
        DifferentiatingInPassing,
        Viewing,
        Imaging,
        Filming,
        Renormed,
        OldWeightNorm,
    )
}


class Restarting(Two):
    """Many of them in one model, whose state lies in buffers and extra state alone: a restart changes no bit."""

    KEPT = (
        FrozenBackbone,
        PretrainedInEval,
        OwnTrain,
        Norms,
        Queue,
        HiddenQueue,
        Centre,
        Codebook,
        Growing,
        Late,
        Expanded,
        Filled,
        Cached,
        Complex,
        Mixed,
        Tied,
        ExtraState,
        Viewing,
        Filming,
        OldWeightNorm,
    )

    def __init__(self) -> None:
        super().__init__()
        self.members = nn.ModuleList()
        for kind in self.KEPT:
            member = kind()
            del member.first, member.last
            self.members.append(member)

    def between(self, hidden: torch.Tensor) -> Any:
        for member in self.members:
            hidden = (hidden + member.between(hidden)).tanh()  # type: ignore[operator]
        return hidden


class FromData(Two):
    """Initialises a parameter from the first batch that it sees."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.zeros(HIDDEN))
        self.begun = False

    def between(self, hidden: torch.Tensor) -> Any:
        if not self.begun:
            self.scale.data.copy_(1 + hidden.detach().std(0))
            self.begun = True
        return hidden * self.scale


class Teacher(Two):
    """A part that does not train follows one that does, as the teacher of a student (Tarvainen & Valpola 2017)."""

    def __init__(self) -> None:
        super().__init__()
        self.student = nn.Linear(HIDDEN, HIDDEN)
        self.teacher = nn.Linear(HIDDEN, HIDDEN).requires_grad_(False)
        self.still = nn.Parameter(torch.ones(HIDDEN), requires_grad=False)

    def between(self, hidden: torch.Tensor) -> Any:
        with torch.no_grad():
            for slow, fast in zip(self.teacher.parameters(), self.student.parameters(), strict=True):
                slow.lerp_(fast, 0.1 if self.training else 0.0)
        return hidden + self.student(hidden) + 0.1 * self.teacher(hidden) * self.still


class OfManyTypes(Two):
    """With a BatchNorm, a table in a buffer, and a number that its author made double."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(HIDDEN)
        self.scale = nn.Parameter(torch.ones((), dtype=torch.float64))
        self.register_buffer("table", torch.linspace(0.5, 1.5, HIDDEN))
        self.table: torch.Tensor

    def between(self, hidden: torch.Tensor) -> Any:
        return self.norm(hidden) * self.table * self.scale.float()


class Thawing(Two):
    """Freezes a layer, or begins to train it, in the fourth forward of training; `dies` leaves it out from then on."""

    def __init__(self, frozen: bool = False, dies: bool = False) -> None:
        super().__init__()
        self.body = nn.Linear(HIDDEN, HIDDEN).requires_grad_(not frozen)
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))
        self._frozen, self._dies = frozen, dies
        self.calls: torch.Tensor

    def between(self, hidden: torch.Tensor) -> Any:
        self.calls += self.training
        if self.calls < 4:
            return hidden + self.body(hidden)
        if self._dies:
            return hidden
        self.body.requires_grad_(self._frozen)
        return hidden + self.body(hidden)


def untamed(name: str, planted: Iterable[str]) -> tuple[str, ...]:
    """What is typed to train the member `name`, instead of the model that the words `planted` choose."""
    apart = ("parallel.find_unused=true",) if name == "ComesAndGoes" else ()
    own = [word for word in planted if not word.startswith("model")]
    return (*own, "~model", f"+model._target_=tests.zoo.models.{name}", *apart)

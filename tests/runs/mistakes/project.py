"""A beginner's project, and what is changed in it by mistake."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

PARTS = """import torch
from torch import nn
from torch.utils.data import Dataset

from phalanx import Ratio, Task


class Net(nn.Module):
    def __init__(self, width=8):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, width), nn.ReLU(), nn.Linear(width, 3))

    def forward(self, x):
        return self.layers(x)


class Points(Dataset):
    def __init__(self, points=64, seed=0):
        draw = torch.Generator().manual_seed(seed)
        self.x = torch.randn(points, 4, generator=draw)
        self.y = torch.randint(0, 3, (points,), generator=draw)

    def __len__(self):
        return len(self.y)

    def __getitem__(self, index):
        return self.x[index], self.y[index]


class Loss(Task):
    def ratios(self, model, batch):
        x, y = batch
        logits = model(x)
        loss = nn.functional.cross_entropy(logits, y, reduction="sum")
        hits = (logits.argmax(1) == y).sum()
        return {"loss": Ratio(loss, len(y)), "accuracy": Ratio(hits, len(y))}
"""
WORDS = (
    *("~model", "+model={_target_: mine.parts.Net}", "~data.train", "+data.train={_target_: mine.parts.Points}"),
    *("~data.eval", "+data.eval={_target_: mine.parts.Points, points: 16, seed: 1}", "data.augment=null"),
    *("~task", "+task={_target_: mine.parts.Loss}", "optim=sgd", "optim.lr=0.1", "schedule=constant"),
    *(
        "train.epochs=null",
        "train.steps=6",
        "train.global_batch=8",
        "eval.every=3",
        "checkpoint.every=3",
        "log.every=1",
    ),
    *("data.workers=0", "world.device=cpu"),
)
HERE = "# here"  # stands in the line of the user's that a message must show


@dataclass(frozen=True)
class Mistake:
    """Text of parts.py that is another, and words and files beside it; parts of the message, separated by " … ".

    `begins`: the mistake shows after the first step, so that there is a run folder.
    """

    what: str
    edits: Mapping[str, str]
    says: str
    words: tuple[str, ...] = ()
    code: int = 2
    ranks: int = 1
    begins: bool = False
    files: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.what

    def lay_out(self, folder: Path) -> None:
        """Write the package into `folder`."""
        text = PARTS
        for before, after in self.edits.items():
            assert text.count(before) >= 1, before
            text = text.replace(before, after)
        for name, content in {"mine/__init__.py": "", "mine/parts.py": text, **self.files}.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(content)

    def places(self, folder: Path) -> list[str]:
        """Each line with HERE, as the file's name and the line's number."""
        return [
            f"{path.relative_to(folder)}:{number}"
            for path in sorted((folder / "mine").rglob("*.py"))
            for number, line in enumerate(path.read_text().splitlines(), 1)
            if HERE in line
        ]


def wrong(
    what: str, edits: Mapping[str, str], says: str, *words: str, files: Mapping[str, str] | None = None
) -> Mistake:
    """One that is known before training: code 2 and one line."""
    return Mistake(what, edits, says, words, files=files or {})


def bug(what: str, edits: Mapping[str, str], says: str, *words: str, ranks: int = 1, begins: bool = False) -> Mistake:
    """One that raises in the user's code: code 1 and a traceback of their own lines."""
    return Mistake(what, edits, says, words, 1, ranks, begins)

"""The recipes of docs/recipes train, small, on one rank and on two, and continue to the same bits after a kill."""

import ast
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.compare_runs import same
from tests.libraries.recipes import recipe_data
from tests.phalanx.api.test_notebook import printed, set_up, value
from tests.ranks import QUIET, ROOT, Starter, until

RECIPES = ROOT / "docs" / "recipes"
SHORT = ("train.epochs=null", "train.steps=12", "log.every=1", "checkpoint.every=4", "eval.every=6")

pytestmark = pytest.mark.zoo


@dataclass(frozen=True)
class Recipe:
    """`small` are the words that make it small; `task` is the class in a file of its folder, where it has one."""

    folder: str
    experiment: str
    data: Callable[[Path], None]
    small: tuple[str, ...]
    task: str | None = None


TRANSFORMS = "data.train.transform.transforms.1.size=[32,32]", "data.eval.transform.transforms.1.size=[32,32]"
ALL = [
    Recipe(
        "image_classification",
        "photos",
        recipe_data.photos,
        (
            "model.model_name=test_resnet",
            "model.pretrained=false",
            *TRANSFORMS,
            "train.global_batch=16",
            "data.workers=1",
            "optim.lr=3e-3",
        ),
    ),
    Recipe(
        "text_classification",
        "reviews",
        recipe_data.reviews,
        ("train.global_batch=12", "optim.lr=2e-3", "schedule.warmup_steps=0", "data.workers=1"),
    ),
    Recipe(
        "detection",
        "shapes",
        recipe_data.nothing,
        (
            "data.train.count=24",
            "data.eval.count=4",
            "+model.min_size=64",
            "+model.max_size=128",
            "train.global_batch=2",
        ),
    ),
    Recipe(
        "language_model",
        "characters",
        recipe_data.text,
        ("model.width=32", "model.layers=2", "model.length=32", "train.global_batch=8", "schedule.warmup_steps=2"),
        "LanguageModel",
    ),
    Recipe(
        "speech_recognition",
        "speech",
        recipe_data.recordings,
        ("model.width=32", "model.layers=1", "train.global_batch=8", "data.workers=1", "schedule.warmup_steps=2"),
        "CTC",
    ),
    Recipe(
        "recommender",
        "recommender",
        recipe_data.nothing,
        ("data.train.ratings=2000", "data.eval.ratings=200", "train.global_batch=64"),
        "Rating",
    ),
    Recipe("gan", "gan", recipe_data.nothing, ("model.width=16",), "GanTask"),
]


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("recipe", ALL, ids=lambda recipe: recipe.folder)
def test_recipe_killed_on_the_way_continues_to_the_same_bits(starter: Starter, recipe: Recipe, ranks: int) -> None:
    recipe.data(starter.folder)
    home = RECIPES / recipe.folder
    words = ("--config-dir", str(home / "conf"), f"experiment={recipe.experiment}", *SHORT, *recipe.small)
    environ = {"PYTHONPATH": str(home), "PYTHONDONTWRITEBYTECODE": "1", "HF_HUB_OFFLINE": "1"}
    undisturbed = starter.train(ranks, *words, name="undisturbed", environ=environ)
    world = starter.start(ranks, *words, "run.name=killed", environ=environ)
    until(lambda: starter.results("killed").reached(6), timeout_s=200)
    world.kill(ranks - 1)
    assert -signal.SIGKILL in world.wait().codes
    same(undisturbed, starter.train(ranks, *words, name="killed", environ=environ))
    assert starter.results("killed").events("resume")
    losses = [line["loss"] for line in undisturbed.metrics("train")]
    assert min(losses[6:]) < losses[0]


@pytest.mark.parametrize("recipe", ALL, ids=lambda recipe: recipe.folder)
def test_recipe_takes_25_lines_of_config_and_25_of_task(recipe: Recipe) -> None:
    home = RECIPES / recipe.folder
    config = (home / "conf" / "experiment" / f"{recipe.experiment}.yaml").read_text().splitlines()
    assert len(config) <= 25
    if recipe.task is not None:
        classes = [
            node
            for file in home.rglob("*.py")
            for node in ast.parse(file.read_text()).body
            if isinstance(node, ast.ClassDef) and node.name == recipe.task
        ]
        (task,) = classes
        assert task.end_lineno is not None
        assert task.end_lineno - task.lineno < 25


def test_hand_written_loop_and_its_config_reach_the_same_accuracy(tmp_path: Path) -> None:
    home = RECIPES / "from_a_plain_loop"
    shutil.copytree(home, tmp_path / "mine")
    environ = {**os.environ, **QUIET, "PYTHONPATH": "."}
    by_hand = subprocess.run(
        [sys.executable, "loop.py"], cwd=tmp_path / "mine", env=environ, capture_output=True, text=True, check=True
    )
    words = ["run", "-n", "2", "--config-dir", "conf", "experiment=plain", "run.name=plain", "wandb.mode=disabled"]
    subprocess.run(
        [sys.executable, "-m", "phalanx", *words], cwd=tmp_path / "mine", env=environ, capture_output=True, check=True
    )
    accuracy = float(by_hand.stdout.split()[-1])
    summary = json.loads((tmp_path / "mine" / "runs" / "plain" / "summary.json").read_text())
    assert accuracy > 0.85
    assert abs(summary["eval"]["accuracy"] - accuracy) < 0.05


def test_notebook_and_script_use_what_they_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import nbclient
    import nbformat

    shutil.copytree(RECIPES / "notebook", tmp_path / "mine")
    set_up(monkeypatch, tmp_path / "mine")
    notebook = nbformat.read(tmp_path / "mine" / "notebook.ipynb", 4)  # type: ignore[no-untyped-call]
    resources = {"metadata": {"path": str(tmp_path / "mine")}}
    nbclient.NotebookClient(notebook, kernel_name="python3", resources=resources).execute()
    cells = [cell.outputs for cell in notebook.cells if cell.cell_type == "code"]
    assert float(value(cells[2])) > 0.8
    assert "optim.lr=fast" in printed(cells[3])
    (run,) = (tmp_path / "mine" / "runs").iterdir()
    script = f"""import phalanx, torch
from mine import Digits
digits = Digits("held_out")
model = phalanx.load({str(run)!r}, trust=["mine"]).model()
images = torch.stack([image for image, _ in digits])
print(float((model(images).argmax(1) == torch.tensor([label for _, label in digits])).float().mean()))
"""
    environ = {**os.environ, **QUIET}
    said = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path / "mine", env=environ, capture_output=True, text=True, check=True
    )
    assert float(said.stdout) == float(value(cells[2]))

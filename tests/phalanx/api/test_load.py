"""phalanx.load gives what a run recorded, and its model as it was evaluated."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.utils.data import Dataset

import phalanx
from phalanx.compose.digest import digest
from phalanx.run_folder.checkpoints import Checkpoints
from phalanx.targets.instantiate import Targets
from phalanx.train.engine.parts.config_targets import KINDS
from tests.ranks import ROOT, Nursery, Results, Starter

pytestmark = pytest.mark.xdist_group("load")  # they look at one run

RUN = ("model=mlp", "model.hidden=[8]", "train.steps=8", "train.epochs=null", "train.ema_decay=0.5", "optim.lr=0.01")
SAVED = ("eval.every=2", "checkpoint.every=2", "checkpoint.keep=2")


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory, nursery: Nursery) -> Results:
    return Starter(nursery, tmp_path_factory.mktemp("load")).train(2, *RUN, *SAVED, name="r")


def test_it_gives_what_the_run_recorded(results: Results) -> None:
    run = phalanx.load(results.folder)
    assert run.metrics() == results.metrics()
    assert [line["step"] for line in run.metrics("eval")] == [2, 4, 6, 8]
    assert run.events() == results.events()
    assert run.summary == results.summary
    assert digest(run.config)[:8] == json.loads((results.folder / "environment.json").read_text())["config_digest"][:8]


def test_its_model_is_the_one_that_was_evaluated(results: Results) -> None:
    """In eval mode, with the average of the weights: it comes to the accuracy that stands in metrics.jsonl."""
    run = phalanx.load(results.folder)
    held_out = Targets(KINDS, None).build(run.config.data.eval or {}, "data.eval", Dataset)
    images, labels = zip(*(held_out[i] for i in range(len(held_out))), strict=True)  # type: ignore[arg-type]
    for which in ("last", 6):
        model = run.model(which)
        assert not model.training
        with torch.no_grad():
            right = model(torch.stack(images)).argmax(1) == torch.tensor(labels)
        step = 8 if which == "last" else which
        (line,) = [line for line in run.metrics("eval") if line["step"] == step]
        assert right.double().mean().item() == pytest.approx(line["accuracy"])


def test_the_best_is_told_by_a_file_and_given_without_a_word(results: Results) -> None:
    run = phalanx.load(results.folder)
    best = max(run.metrics("eval"), key=lambda line: line["accuracy"])["step"]
    assert (results.folder / "checkpoints/best").read_text() == f"step_{best:08d}\n"
    stored = load_file(results.folder / f"checkpoints/step_{best:08d}/ema.safetensors")
    for found in (run.weights(), run.weights("best"), run.weights(best), run.model().state_dict()):
        assert found.keys() == stored.keys()
        assert all(torch.equal(found[name], stored[name]) for name in stored)


def test_the_file_of_the_best_is_mended_at_the_next_save(results: Results, tmp_path: Path) -> None:
    """A kill between a save and this leaves an older one, or none."""
    shutil.copytree(results.folder, tmp_path / "r")
    checkpoints = Checkpoints(tmp_path / "r", 1)
    newest, file = checkpoints.steps()[-1], tmp_path / "r/checkpoints/best"
    for stale in ("step_00000001\n", "", None):
        file.unlink() if stale is None else file.write_text(stale)
        checkpoints.retain(2, newest)
        assert file.read_text() == f"step_{newest:08d}\n"
    os.truncate(file, 2**42)  # another's, whose memory nobody has
    checkpoints.retain(2, newest)
    assert file.stat().st_size < 20
    checkpoints.retain(2, 5)  # which was evaluated and never saved
    assert not file.exists()


def test_its_name_below_runs_will_do(results: Results, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(results.folder.parents[1])
    assert phalanx.load("r").folder == results.folder
    with pytest.raises(phalanx.ConfigError, match=r"rr is no run's folder.*Did you mean r\?"):
        phalanx.load("rr")
    with pytest.raises(phalanx.ConfigError, match=r"no checkpoint of step 3. Steps: .*8; or 'best' or 'last'"):
        phalanx.load("r").weights(3)


def test_nothing_but_the_model_needs_torch(results: Results) -> None:
    program = f"import phalanx; r = phalanx.load({str(results.folder)!r}); r.config, r.metrics(), r.events(), r.summary"
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.modules['torch'] = None; {program}"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def test_a_package_that_the_config_names_is_imported_once_it_is_trusted(
    starter: Starter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(ROOT / "docs" / "own_package", tmp_path / "home")
    own = ("--config-dir", str(tmp_path / "home/conf"), "experiment=curves", "train.epochs=1")
    results = starter.train(1, *own, name="own", environ={"PYTHONPATH": str(tmp_path / "home")})
    monkeypatch.syspath_prepend(tmp_path / "home")
    with pytest.raises(phalanx.ConfigError, match=r"model\._target_=mypkg\.curves\.Net .* type trust=\['mypkg'\]$"):
        phalanx.load(results.folder).model()
    assert "mypkg" not in sys.modules
    model = phalanx.load(results.folder, trust=["mypkg"]).model()
    assert model(torch.zeros(3, 1)).shape == (3, 1)
    for name in [name for name in sys.modules if name.partition(".")[0] == "mypkg"]:
        del sys.modules[name]


def test_no_link_below_the_folder_is_followed(results: Results, tmp_path: Path) -> None:
    shutil.copytree(results.folder, tmp_path / "r")
    (tmp_path / "r/checkpoints/best").unlink()
    (tmp_path / "r/checkpoints/best").symlink_to("/etc/hostname")
    with pytest.raises(phalanx.ConfigError, match="is a link"):
        phalanx.load(tmp_path / "r")

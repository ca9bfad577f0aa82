"""`phalanx evaluate` finds what training found, on any number of ranks, and only reads."""

import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from phalanx.deployment.checks import check_which, check_words
from phalanx.exit.codes import ConfigError
from tests.ranks import QUIET, Nursery, Results, Starter
from tests.train.parallel.sharded_strategy import SHARDED
from tests.warm_command import run_warm

pytestmark = pytest.mark.xdist_group("evaluate")  # they look at one run

RUN = (
    *("model=mlp", "model.hidden=[8]", "train.steps=8", "train.epochs=null", "train.ema_decay=0.5", "optim.lr=0.01"),
    *(
        "data.test={_target_: phalanx.data.Digits, split: held_out}",
        "eval.batch=100",
        "checkpoint.best_metric=accuracy",
    ),
    *("eval.every=2", "checkpoint.every=2", "checkpoint.keep=9"),
)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory, nursery: Nursery) -> Results:
    return Starter(nursery, tmp_path_factory.mktemp("evaluate")).train(2, *RUN, name="r")


def evaluated(nursery: Nursery, run: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    environ = {**os.environ, **QUIET}
    return run_warm(nursery, ["evaluate", str(run), *words], cwd=run.parent, env=environ)


def lines(process: "subprocess.CompletedProcess[str]") -> list[dict[str, Any]]:
    assert process.returncode == 0, process.stderr
    return [json.loads(line) for line in process.stdout.splitlines()]


def timeless(found: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in line.items() if name != "time"} for line in found]


def contents(folder: Path) -> dict[Path, tuple[int, bytes]]:
    return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.rglob("*") if path.is_file()}


def test_it_gives_the_lines_of_metrics_jsonl_and_only_reads(nursery: Nursery, results: Results) -> None:
    """Of the best step, where the test's line has the step that the run was at; the average, as the run evaluates it."""
    before = contents(results.folder)
    known = {line["step"]: line for line in timeless(results.metrics("eval"))}
    best = int((results.folder / "checkpoints/best").read_text().removeprefix("step_"))
    (test,) = timeless(results.metrics("test"))
    assert lines(evaluated(nursery, results.folder)) == [known[best], {**test, "step": best}]
    for ranks, which, step in (("3", "last", 8), ("2", "4", 4)):
        found, _ = lines(evaluated(nursery, results.folder, "-n", ranks, "--which", which))
        assert found == known[step]
    assert contents(results.folder) == before


def test_other_data_and_batches_are_typed(nursery: Nursery, results: Results) -> None:
    """A training set that is not there any more is not asked for."""
    gone = results.folder.parent / "gone"
    shutil.copytree(results.folder, gone)
    resolved = (gone / "resolved.yaml").read_text()
    (gone / "resolved.yaml").write_text(resolved.replace("split: train", "split: gone"))
    found = lines(evaluated(nursery, gone, "data.eval.split=train", "data.test=null", "eval.batch=7", "eval.batches=3"))
    assert [(line["split"], line["accuracy"] * 21 % 1) for line in found] == [("eval", pytest.approx(0, abs=1e-9))]


def test_a_strangers_run_is_evaluated_under_trust_alone(nursery: Nursery, starter: Starter) -> None:
    """Here one whose parameters are sharded over the ranks, whose forwards all have to take part in."""
    results = starter.train(2, *RUN, "train.steps=2", "eval.batch=93", SHARDED, "optim.fused=false", name="sharded")
    refused = evaluated(nursery, results.folder, "-n", "2")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "run.trust=[tests]" in " ".join(refused.stderr.split())
    found, _ = lines(evaluated(nursery, results.folder, "-n", "2", "run.trust=[tests]"))
    assert [found] == timeless(results.metrics("eval"))


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("optim.lr=1", "optim.lr=1 would have no effect"),
        ("run.name=x", "run.name=x would have no effect"),
        ("data.train.split=x", "data.train.split=x would have no effect"),
        ("experiment=mnist", "experiment=mnist would have no effect"),
        ("eval.batchs=3", "Did you mean eval.batch"),
    ],
)
def test_what_would_have_no_effect_is_refused(word: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        check_words("evaluate", ["data.eval.split=train", word])


def test_a_checkpoint_that_is_not_there_is_one_message(nursery: Nursery, results: Results) -> None:
    with pytest.raises(ConfigError, match="--which=newest is no checkpoint"):
        check_which("newest")
    found = evaluated(nursery, results.folder, "--which", "3")
    assert (found.returncode, found.stdout) == (2, "")
    assert "has no checkpoint of that step. There is: 2, 4, 6, 8." in " ".join(found.stderr.split())
    damaged = results.folder.parent / "damaged"
    shutil.copytree(results.folder, damaged)
    for file in damaged.glob("checkpoints/step_*/ema.safetensors"):
        file.write_bytes(file.read_bytes()[:-1])
    found = evaluated(nursery, damaged)
    assert (found.returncode, found.stdout) == (2, "")
    assert "is damaged: ema.safetensors is not what was written" in " ".join(found.stderr.split())

"""A model, a data set and a task of the user's own, in the user's own folders, train without touching this repository."""

import shutil
from pathlib import Path

from tests.ranks import ROOT, Starter

OWN = ROOT / "docs" / "own_package"


def test_own_package_and_config_folder_train_on_two_ranks(starter: Starter, tmp_path: Path) -> None:
    home = tmp_path / "home of 'mine'"
    shutil.copytree(OWN, home)
    ended = starter.run(
        2,
        "--config-dir",
        str(home / "conf"),
        "experiment=curves",
        "run.name=own",
        environ={"PYTHONPATH": str(home)},
    )
    assert ended.codes == [0, 0], ended.output
    results = starter.results("own")
    assert results.summary["samples"] == 20 * 2000
    losses = [line["loss"] for line in results.metrics("train")]
    assert losses[-1] < losses[0] / 2


def test_readme_shows_the_files_that_the_test_runs() -> None:
    readme = (ROOT / "README.md").read_text()
    for path in (OWN / "mypkg" / "curves.py", OWN / "conf" / "experiment" / "curves.yaml"):
        shown = "".join(f"    {line}\n" if line else "\n" for line in path.read_text().splitlines())
        assert shown.strip("\n") in readme, f"{path} is not what the README shows"

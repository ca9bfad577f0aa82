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
        "+sinks.table._target_=mypkg.sinks.Table",
        "run.name=own",
        environ={"PYTHONPATH": str(home)},
    )
    assert ended.codes == [0, 0], ended.output
    results = starter.results("own")
    assert results.summary["samples"] == 20 * 2000
    losses = [line["loss"] for line in results.metrics("train")]
    assert losses[-1] < losses[0] / 2
    rows = (results.folder / "evaluations.csv").read_text().splitlines()
    (evaluation,) = results.metrics("eval")
    assert rows == [f"{evaluation['step']},0.001,{evaluation['loss']}"]


def test_readme_and_pages_show_the_files_that_the_test_runs() -> None:
    readme, trackers = ((ROOT / page).read_text() for page in ("README.md", "docs/trackers.md"))
    shown_in = {"mypkg/curves.py": readme, "conf/experiment/curves.yaml": readme, "mypkg/sinks.py": trackers}
    for path, page in ((OWN / name, page) for name, page in shown_in.items()):
        shown = "".join(f"    {line}\n" if line else "\n" for line in path.read_text().splitlines())
        assert shown.strip("\n") in page, f"{path} is not what is shown"

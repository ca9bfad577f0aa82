"""What a sweep that has come to its end is good for: one grid, trained once, that all of these look at."""

import html
import re

import pytest

from phalanx.compose.compose import compose
from phalanx.compose.digest import digest
from tests.launch.reporting.browser import document
from tests.launch.sweep.sweeper import HYDRA, SHORT, Sweeper
from tests.ranks import Starter

pytestmark = pytest.mark.xdist_group("grid")

FIXED = (*SHORT, "optim=adamw")
GRID = (*FIXED, "train.threads=auto", "optim.lr=1e-3,1e-2", "model.hidden=[8],[16]", "sweep.ranks=2")
THREADS = {"OMP_NUM_THREADS": "2", "OMP_WAIT_POLICY": "PASSIVE"}  # four threads may be more than there are cores


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> Sweeper:
    sweeper = Sweeper(tmp_path_factory.mktemp("grid"))
    sweeper.finish(*GRID, environ=THREADS)
    return sweeper


def test_every_point_of_a_grid_is_a_run_with_the_weights_of_one_that_was_started_alone(
    grid: Sweeper, starter: Starter
) -> None:
    found = grid.found
    assert [row["words"] for row in found["rows"]] == [
        ["optim.lr=0.001", "model.hidden=[8]"],
        ["optim.lr=0.001", "model.hidden=[16]"],
        ["optim.lr=0.01", "model.hidden=[8]"],
        ["optim.lr=0.01", "model.hidden=[16]"],
    ]
    assert grid.states() == ["complete"] * 4
    assert all(grid.results(trial).summary["world_sizes"] == [2] for trial in range(4))
    assert "  group: s\n" in (grid.results(0).folder / "resolved.yaml").read_text(), "W&B shows them together"
    alone = starter.train(2, *FIXED, "train.threads=2", "optim.lr=0.01", "model.hidden=[8]", name="alone")
    assert grid.results(2).sha256 == alone.sha256
    best = max(found["rows"], key=lambda row: float(row["value"]))
    assert found["best"] == best
    assert best["value"] == grid.results(best["trial"]).summary["eval"]["accuracy"]


def test_best_point_can_be_written_out_as_an_experiment_and_trains_the_same_weights(
    grid: Sweeper, starter: Starter
) -> None:
    best = grid.found["best"]
    assert "train.threads=2" in grid.phalanx("sweep", "--best", "s").stdout, "what weights depend on is no secret"
    file = starter.folder / "conf/experiment/mine.yaml"
    file.parent.mkdir(parents=True)
    assert grid.phalanx("sweep", "--best", "s", "--save", str(file)).returncode == 0
    mine = (f"--config-dir={file.parents[1]}", "experiment=mine")
    again = compose(mine).config
    assert again.train.threads == 2
    weights = starter.train(2, *mine, "train.threads=2", name="mine").sha256
    assert weights == grid.results(best["trial"]).sha256
    was = compose([*FIXED, *best["words"]]).config
    assert digest(again) == digest(was)
    assert again.eval == was.eval
    assert f"accuracy {best['value']:.5g}" in file.read_text()


def test_page_and_status_tell_what_is_best(grid: Sweeper) -> None:
    """In a real browser."""
    best = grid.found["best"]
    text = document(grid.sweep / "report.html", grid.folder)
    assert html.escape(best["words"][1]) in text
    assert text.count('class="main-svg"') >= 3, "slices, parallel coordinates, learning curves"
    assert re.search(r"<td><code>optim.lr</code></td><td[^>]*>\d+%", text)
    assert "sweep.seeds=3 would" in text
    for folder, expected in (
        (grid.folder / "runs", rf"s +finished +4/4 .*best accuracy .*, trial {best['trial']}"),
        (grid.sweep, "0003 +finished +8/8"),
    ):
        assert re.search(expected, grid.phalanx("status", "--root", str(folder)).stdout)


def test_the_same_command_again_trains_nothing_twice_also_by_hydras_own_option_and_over_a_torn_journal(
    grid: Sweeper,
) -> None:
    journal, before = grid.sweep / "journal.jsonl", grid.starts()
    whole = journal.read_bytes()
    journal.write_bytes(whole + b'{"op_code": 4, "work')
    code, output, errors = grid.run(*GRID, environ=THREADS, command=HYDRA)
    assert (code, grid.starts()) == (0, before), output + errors
    best = output.splitlines()[-1]
    assert best.startswith("phalanx run -n 2 ")
    assert "optim.lr=0.01" in best
    assert grid.phalanx("sweep", "--best", "s").stdout == best + "\n"
    assert journal.read_bytes().startswith(whole)
    assert b"work\n" not in journal.read_bytes()


def test_storage_of_another_search_is_left_alone(grid: Sweeper) -> None:
    journal = grid.sweep / "journal.jsonl"
    before = journal.read_bytes()
    other = [word.replace("1e-2", "1e-1") for word in GRID]
    code, _, errors = grid.run(*other, environ=THREADS)
    assert (code, journal.read_bytes()) == (2, before)
    assert "holds another search, with another space. Type run.name=" in errors

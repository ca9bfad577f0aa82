"""`phalanx report` tells what became of runs, on a page that a browser shows whole without a network."""

import html
import json
import re
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from phalanx.launch.reporting import history, timeline
from phalanx.launch.reporting.charts import COLOURS, Chart, curves
from phalanx.launch.reporting.run_page import differences, run_page
from phalanx.launch.reporting.timeline import Span, Start, TimeUse
from tests.launch.reporting.browser import document
from tests.paced_task import TASK, Pace
from tests.ranks import ROOT, Nursery, Results, Starter, until

pytestmark = pytest.mark.xdist_group("report")  # they look at the same runs

SHORT = (TASK, "model=mlp", "model.hidden=[8]", "train.steps=40", "eval.every=20", "checkpoint.every=10", "log.every=5")


@pytest.fixture(scope="module")
def runs(nursery: Nursery, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`storm`, a run of 2 ranks that lost them 5 steps or more after its last checkpoint and finished, and `calm`."""
    starter = Starter(nursery, tmp_path_factory.mktemp("report"))
    pace, storm = Pace(after=15, gate=str(starter.folder / "gate")), starter.results("storm")
    world = starter.start(2, *SHORT, "run.name=storm", environ=pace.environ())
    until(lambda: storm.reached(15))
    world.kill()
    world.wait()
    pace.open()
    starter.train(2, *SHORT, name="storm", environ=pace.environ())
    starter.train(1, *SHORT, "optim.lr=0.02", name="calm", environ=pace.environ())
    return starter.folder / "runs"


@pytest.fixture
def storm(runs: Path) -> Results:
    return Results(runs / "storm")


def told(run: Path, now: float) -> tuple[list[Start], list[Span]]:
    found = history.read(run)
    begun = timeline.starts(found, now)
    return begun, timeline.spans(found, begun)


def report(folder: Path, *argv: str) -> tuple[int, str]:
    command = [sys.executable, "-m", "phalanx.launch.cli", "report", *argv, f"--root={folder}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


def colours(picture: Path) -> dict[object, int]:
    """How many pixels of each colour there are."""
    with Image.open(picture) as image:
        return {colour: count for count, colour in image.convert("RGB").getcolors(image.width * image.height) or []}


def rgb(colour: str) -> tuple[int, ...]:
    return tuple(bytes.fromhex(colour[1:]))


def test_wall_time_is_told_apart_by_cause_without_a_gap(storm: Results) -> None:
    spans = told(storm.folder, time.time())[1]
    assert all(before.end == after.begin for before, after in pairwise(spans))
    spent, summary = timeline.seconds(spans), storm.summary
    assert sum(spent.values()) == pytest.approx(summary["wall_s"], abs=0.5)
    stepping = summary["data_s"] + summary["step_s"] + summary["log_s"]
    lost = spent[TimeUse.AGAIN] + spent[TimeUse.SILENCE] + spent[TimeUse.NOTHING]
    unclocked = max(0.0, summary["lost_s"] - lost)  # between what a rank clocks, as where the machine is busy
    assert stepping - 0.3 <= spent[TimeUse.STEPS] + spent[TimeUse.DATA] <= stepping + unclocked + 0.3
    assert spent[TimeUse.DATA] == pytest.approx(summary["data_s"], rel=0.5, abs=0.05)
    for cause, part in ((TimeUse.EVALUATION, "evaluate_s"), (TimeUse.CHECKPOINT, "checkpoint_s")):
        assert 0 < spent[cause] <= summary[part] + 0.3
    begun = [event for event in storm.events() if event["event"] in ("start", "resume")]
    assert spent[TimeUse.START] == pytest.approx(sum(event["took_s"] for event in begun), abs=0.1)
    assert spent[TimeUse.AGAIN] > 0


def test_starts_are_told_with_where_they_ran_and_how_they_ended(storm: Results) -> None:
    first, second = timeline.starts(history.read(storm.folder), time.time())
    assert (first.outcome, second.outcome) == ("died", "finished")
    assert first.end <= second.begin
    assert second.says["step"] == 10
    assert sum(second.says["hosts"].values()) == 2


def test_a_real_browser_shows_all_of_it(runs: Path, tmp_path: Path) -> None:
    assert report(runs, "storm", "calm") == (0, f"{runs / 'report.html'}\n")
    picture = tmp_path / "picture.png"
    found = document(runs / "report.html", tmp_path, f"--screenshot={picture}")
    text = html.unescape(re.sub(r"<(script|style)\b.*?</\1>|<[^>]*>", " ", found, flags=re.DOTALL))
    for expected in ("2 runs", "Learning curves", "Where the time went", "What happened", "What ran where", "died"):
        assert expected in text
    assert re.search(r"optim\.lr\s+0\.001\s+0\.02", text)
    for name in ("storm", "calm"):
        goodput = f"{Results(runs / name).summary['goodput']:.0%}"
        assert re.search(rf"{name}\s+finished\s+40/40[^%]*\s{goodput}\s+[0-9a-f]{{16}}\s", text), "as on the console"
    assert re.search(r"checkpoint\s+took \d+ ms\s", text), "events are told as on the console"
    assert found.count('class="main-svg"') >= 9, "a chart for each number, and a strip for each run"
    assert found.count("js-line") >= 4 * 7, "two runs, training and evaluation"
    seen = (TimeUse.STEPS, TimeUse.START, TimeUse.AGAIN, TimeUse.NOTHING)
    legend = 200  # pixels of a swatch, which are there whatever is drawn
    pixels = colours(picture)
    assert all(pixels[rgb(COLOURS[cause])] > 2 * legend for cause in seen), "the strip has its colours"


def test_what_a_run_says_becomes_no_markup(starter: Starter) -> None:
    name = "<img src=x onerror=document.title='taken'><b>'\"&"
    starter.train(1, "model=mlp", "train.steps=2", name="r")
    folder = (starter.folder / "runs/r").rename(starter.folder / "runs" / name)
    hostile = "</script><script>document.title='taken'</script>"
    (folder / "resolved.yaml").write_text(f'a: "{hostile}"\n')
    with (folder / "events.jsonl").open("a") as file:
        print(json.dumps({"time": time.time(), "event": hostile, "step": 2, hostile: hostile}), file=file)
    with (folder / "metrics.jsonl").open("a") as file:
        print(json.dumps({"time": time.time(), "split": hostile, "step": 3, hostile: 1.0}), file=file)
    assert report(starter.folder / "runs", str(folder))[0] == 0
    found = document(folder / "report.html", starter.folder)
    assert "<title>taken" not in found
    assert f"<h1>{html.escape(name, quote=False)}</h1>" in found
    assert "<img src=x" not in found
    assert "<b>" not in found


def test_a_run_that_is_under_way_is_told_up_to_now(starter: Starter) -> None:
    pace = Pace(after=15, gate=str(starter.folder / "gate"))
    world = starter.start(2, *SHORT, "run.name=r", environ=pace.environ())
    until(lambda: starter.results("r").reached(15))
    now = time.time() + 100
    found = history.read(starter.folder / "runs/r")
    assert [start.outcome for start in timeline.starts(found, now)] == ["running"]
    assert told(starter.folder / "runs/r", now)[1][-1].end == now
    assert "running" in run_page([found], now)
    pace.open()
    assert world.wait().codes == [0, 0]


def test_damaged_or_empty_folders_still_give_a_page(tmp_path: Path) -> None:
    for run in ("empty", "damaged"):
        (tmp_path / run).mkdir()
        (tmp_path / run / "resolved.yaml").write_text("" if run == "empty" else "a: [\0")
    for name in ("metrics.jsonl", "events.jsonl", "summary.json", "environment.json"):
        foreign = (
            b'{"time": "now", "step": 1, "event": "start"}\n{"time": 1.0, "step": 1, "event": "resume", "hosts": 3}\n'
        )
        (tmp_path / "damaged" / name).write_bytes(b'[]\n{"step"\n\xff\n' + foreign)
    assert report(tmp_path, "empty", "damaged") == (0, f"{tmp_path / 'report.html'}\n")
    assert "There are no lines of metrics yet" in (tmp_path / "report.html").read_text()


def test_runs_of_any_folders_are_compared_each_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page lies beside them, or here where they have no place in common."""
    for name in ("a/1", "a/2", "b/1"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "resolved.yaml").touch()
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.chdir(tmp_path)
    for words, file in ((("a/1", "a/2", "a/../a/1"), "a/report.html"), (("a/1", "b/1"), "report.html")):
        command = [sys.executable, "-m", "phalanx.launch.cli", "report", *words]
        done = subprocess.run(command, capture_output=True, text=True)
        assert (done.returncode, done.stdout, done.stderr) == (0, f"{file}\n", "")
        assert "<h1>2 runs</h1>" in Path(file).read_text()


def test_a_page_that_cannot_be_written_is_one_message(tmp_path: Path) -> None:
    (tmp_path / "r").mkdir()
    (tmp_path / "r" / "resolved.yaml").touch()
    code, output = report(tmp_path, "r", "--out", str(tmp_path / "nowhere" / "page.html"))
    assert (code, output.count("\n")) == (2, 1)
    assert "page.html cannot be written: No such file or directory. Type --out" in output


def test_differences_name_what_the_configs_do_not_share() -> None:
    found = differences(["a: 1\nb: {c: [1, 2], d: x}\n", "a: 1\nb: {c: [1, 3]}\n"])
    assert found == {"b.c": ["[1, 2]", "[1, 3]"], "b.d": ["x", "-"]}


def test_long_curves_keep_their_spikes_and_their_gaps() -> None:
    lines = [{"step": step, "split": "train", "time": 0.0, "loss": 1.0} for step in range(100_000)]
    lines[77_777]["loss"] = 1234.5
    lines[-1]["loss"] = 0.125
    for line in lines[5_000:6_000]:
        line["loss"] = None
    (chart,) = curves({"r": lines})
    band, line = traces(chart)
    assert max(filter(None, band["y"])) == 1234.5
    assert None in line["y"]
    assert (line["x"][-1], line["y"][-1]) == (99_999, 0.125)
    assert len(chart.html) < 100_000


def test_a_number_between_two_that_are_missing_is_a_dot() -> None:
    lines = [{"step": step, "split": "train", "time": 1.0, "loss": None if step % 2 else 1.0} for step in range(4)]
    lines += [{"step": step, "split": "train", "time": 1.0, "loss": 1.0} for step in (4, 5)]
    (line,) = traces(curves({"r": lines})[0])
    assert line["marker"]["size"] == [5, 0, 5, 0, 0, 0]


def test_a_number_that_stays_what_it_is_has_an_axis_that_tells_it() -> None:
    lines = [{"step": step, "split": "train", "time": 1.0, "lr": 1e-3, "loss": 0.0} for step in range(4)]
    loss, rate = curves({"r": lines, "s": lines})
    assert layout(rate)["yaxis"]["range"] == [0.0, 2e-3]
    assert "range" not in layout(loss)["yaxis"]
    assert "range" not in layout(curves({"r": lines, "s": [{**lines[0], "lr": 0.1}]})[1])["yaxis"]


def traces(chart: Chart) -> Any:
    return drawn(chart)[0]


def layout(chart: Chart) -> Any:
    return drawn(chart)[1]


def drawn(chart: Chart) -> tuple[Any, Any]:
    """What a chart's script gives to plotly: traces and layout."""
    begin = re.search(r"Plotly\.newPlot\(\s*\"[^\"]+\",\s*", chart.html)
    assert begin
    found, end = json.JSONDecoder().raw_decode(chart.html, begin.end())
    begin = re.compile(r",\s*").match(chart.html, end)
    assert begin
    return found, json.JSONDecoder().raw_decode(chart.html, begin.end())[0]

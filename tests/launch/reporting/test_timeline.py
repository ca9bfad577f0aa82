"""The wall time's causes, told from histories that no real run leaves behind at will."""

import json
import os
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import pytest

from phalanx.launch.commands.status import table
from phalanx.launch.reporting import history, timeline
from phalanx.launch.reporting.run_page import run_page
from phalanx.launch.reporting.timeline import Start
from phalanx.launch.state.run import run_state
from phalanx.run_folder import lease, lease_holders

EPOCH = 1e9
START = 'start 0 {"took_s": 4.0, "incarnation": 1}'


def made(run: Path, events: Sequence[str], lines: str = "") -> Path:
    """A run's folder, with events such as "12.5 start 0 {\"took_s\": 3.0}": seconds, name, step and more.

    Of lines there is one a step, at the seconds given.
    """
    run.mkdir()
    (run / "resolved.yaml").touch()
    with (run / "events.jsonl").open("w") as file:
        for event in events:
            seconds, name, step, more = f"{event} {{}}".split(" ", 3)
            facts = json.JSONDecoder().raw_decode(more)[0]
            print(json.dumps({"time": EPOCH + float(seconds), "event": name, "step": int(step), **facts}), file=file)
        last = EPOCH + float(events[-1].split(" ")[0])
    os.utime(run / "events.jsonl", (last, last))
    with (run / "metrics.jsonl").open("w") as file:
        for place, at in enumerate(lines.split(), start=1):
            print(json.dumps({"time": EPOCH + float(at), "split": "train", "step": place, "loss": 1.0}), file=file)
    return run


def held(run: Path, since: float, seen: float) -> None:
    """One more start took the run, and was last seen to live at `seen`. It goes on living, as this test does."""
    (run / "lease").mkdir(exist_ok=True)
    taken = lease.acquire(run, 0, {})
    path = run / f"lease/{taken.incarnation:08d}.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "since": EPOCH + since}))
    os.utime(path, (EPOCH + seen, EPOCH + seen))


def dies(run: Path) -> None:
    for path in (run / "lease").glob("*.json"):
        seen = path.stat().st_mtime
        path.write_text(json.dumps({**json.loads(path.read_text()), "began": 0}))
        os.utime(path, (seen, seen))


def told(run: Path, now: float = 1000.0) -> tuple[list[Start], dict[str, float]]:
    """The starts, and the seconds by cause, whose spans have no gap between them."""
    found = history.read(run)
    begun = timeline.starts(found, EPOCH + now)
    spans = timeline.spans(found, begun)
    assert all(before.end == after.begin for before, after in pairwise(spans))
    return begun, {cause.value: round(sum_s, 3) for cause, sum_s in timeline.seconds(spans).items() if sum_s}


def outcomes(run: Path, now: float = 1000.0) -> list[str]:
    return [start.outcome for start in told(run, now)[0]]


def test_a_start_that_comes_up_is_no_sign_of_life_of_the_one_before(tmp_path: Path) -> None:
    run = made(tmp_path / "r", [f"4 {START}", "10 checkpoint 5"], "6 7 8 9 10")
    held(run, since=3, seen=20)
    dies(run)
    held(run, since=50, seen=60)
    begun, spent = told(run, now=70)
    assert [start.outcome for start in begun] == ["died", "starting"]
    assert spent == {"steps": 16.0, "starting": 24.0, "nothing ran": 30.0}


def test_a_start_that_died_before_its_first_event_is_told(tmp_path: Path) -> None:
    run = made(tmp_path / "r", [f"4 {START}", "10 checkpoint 5"], "6 7 8 9 10")
    held(run, since=3, seen=10)
    dies(run)
    held(run, since=50, seen=60)
    lease_holders.set_from_step(run, 2, 5)
    os.utime(run / "lease/00000002.json", (EPOCH + 60, EPOCH + 60))
    dies(run)
    begun, spent = told(run)
    assert [(start.outcome, start.step) for start in begun] == [("died", 0), ("never began", 5)]
    assert spent == {"steps": 6.0, "starting": 14.0, "nothing ran": 40.0}


def test_a_start_that_waited_for_the_one_before_undoes_nothing_of_it(tmp_path: Path) -> None:
    """It began while the other still trained, and took the run over when that had saved."""
    events = [f"4 {START}", "20 checkpoint 8", "21 preempt 8", '25 resume 8 {"took_s": 15.0}', "30 finish 9"]
    _, spent = told(made(tmp_path / "r", events, "10 11 12 13 14 15 16 19 29"))
    assert spent == {"steps": 22.0, "starting": 8.0}


def test_without_the_checkpoints_event_what_its_lines_say_was_kept(tmp_path: Path) -> None:
    """A kill came between the two."""
    events = [f"0 {START}", '100 resume 3 {"took_s": 1.0}', "101 finish 4"]
    run = made(tmp_path / "r", events, "10 20 30 101")
    held(run, since=0, seen=50)
    dies(run)
    assert told(run)[1] == {"steps": 31.0, "starting": 5.0, "steps done again": 20.0, "nothing ran": 49.0}


def test_clocks_that_step_back_leave_starts_whole_and_time_running_forward(tmp_path: Path) -> None:
    events = [f"100 {START}", "110 checkpoint 5", "60 preempt 5", '70 resume 5 {"took_s": 1.0}', "130 finish 9"]
    begun, spent = told(made(tmp_path / "r", events, "101 102 103 50 110 111 112 120 129"))
    assert [start.outcome for start in begun] == ["preempted", "finished"]
    assert spent == {"steps": 30.0, "starting": 4.0}


def test_what_goes_on_without_a_line_is_no_training(tmp_path: Path) -> None:
    """As in a collective that hangs."""
    run = made(tmp_path / "r", [f"0 {START}", "900 error 3"], "1 2 3")
    assert told(run)[1] == {"steps": 3.0, "starting": 4.0, "without a word": 897.0}
    slow = made(tmp_path / "slow", [f"0 {START}", "900 error 3"], "100 200 300")
    assert told(slow)[1] == {"steps": 900.0, "starting": 4.0}


def test_a_copy_of_a_folder_does_not_say_when_its_starts_were_last_seen(tmp_path: Path) -> None:
    run = made(tmp_path / "r", [f"0 {START}"], "1 2 3")
    held(run, since=0, seen=40)
    dies(run)
    assert told(run)[0][0].end == EPOCH + 40
    os.utime(run / "events.jsonl")
    assert told(run)[0][0].end == EPOCH + 3


ODD = [
    '0 start 0 {"took_s": "long", "incarnation": [1], "hosts": 3, "ranks": {}}',
    '1 checkpoint 1 {"took_s": null}',
    '2 evaluate 1 {"took_s": -1e300}',
    '3 skip 1 {"why": "\\ud800"}',
    f'4 start 0 {{"took_s": 1, "incarnation": {"9" * 400}}}',
]


@pytest.mark.parametrize("stamp", ["NaN", "Infinity", "1e30", "-5.0", "1700000000000.0", "7", "null"])
def test_what_is_no_time_is_passed_over(tmp_path: Path, stamp: str) -> None:
    run = made(tmp_path / "r", [f"0 {START}", "5 finish 3"], "1 2 3")
    for name, kind in (("events", "event"), ("metrics", "split")):
        with (run / f"{name}.jsonl").open("a") as file:
            print(f'{{"time": {stamp}, "{kind}": "train", "step": 3}}', file=file)
    os.utime(run / "events.jsonl", (EPOCH + 5, EPOCH + 5))
    assert told(run)[1] == {"steps": 5.0, "starting": 4.0}


def test_odd_values_end_neither_report_nor_status(tmp_path: Path) -> None:
    run = made(tmp_path / os.fsdecode(b"r\xff"), ODD)
    huge = "9" * 400
    with (run / "metrics.jsonl").open("a") as file:
        for step in (1, 1, huge, 2):
            rest = f'"loss": {huge}, "samples_per_s": "many", "step_time_s": {huge}, "data_wait_s": true'
            print(f'{{"time": 1000000001.5, "split": "eval", "step": {step}, {rest}}}', file=file)
            print(f'{{"time": 1000000001.5, "split": "train", "step": {step}, {rest}}}', file=file)
    (run / "summary.json").write_text('{"weights_sha256": null, "goodput": "all", "steps": 1.5}')
    (run / "lease").mkdir()
    for name, text in (("1x", "{}"), ("00000001", "{}"), ("00000002", "[]"), ("00000003", '{"incarnation": 7}')):
        (run / f"lease/{name}.json").write_text(text)
    run_page([history.read(run)], EPOCH + 10).encode()
    table([run_state(run, EPOCH + 10)]).encode()
    (run / "summary.json").unlink()
    (run / "checkpoints/step_00000001").mkdir(parents=True)
    for progress in ("{}", '{"seconds": 1, "began": 0.0}', '{"seconds": {"step": "x"}, "began": 0.0}'):
        (run / "checkpoints/step_00000001/manifest.json").write_text('{"time": 1000000001.0}')
        (run / "checkpoints/step_00000001/progress.json").write_text(progress)
        assert run_state(run, EPOCH + 10).goodput is None


def test_many_skips_hide_no_start_and_no_end_and_what_is_left_out_is_counted(tmp_path: Path) -> None:
    skips = [f"{10 + n} skip {n}" for n in range(300)]
    events = [f"0 {START}", *skips, "400 error 300", '450 resume 0 {"took_s": 1.0}', "451 checkpoint 5", "452 finish 9"]
    text = run_page([history.read(made(tmp_path / "r", events))], EPOCH + 1000)
    (rows,) = [part.split("</table>")[0] for part in text.split('class="events"')[1:]]
    names = [row.split("</td><td>")[1] for row in rows.split("</tr>")[1:-1]]
    assert [name for name in names if name != "skip"] == ["start", "error", "resume", "finish"]
    assert "Beside these events.jsonl has: 104 skip, 1 checkpoint." in text


def test_the_strips_shares_are_of_the_whole_wall_time_where_the_first_start_left_no_checkpoint(tmp_path: Path) -> None:
    events = [f"4 {START}", '50 resume 0 {"took_s": 5.0}', "100 finish 3"]
    text = run_page([history.read(made(tmp_path / "r", events, "60 80 100"))], EPOCH + 1000)
    assert '<td class="number">50.0 s (50%)</td>' in text

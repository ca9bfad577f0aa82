"""The first minute: what the README's first command does."""

import json
import re
from pathlib import Path

from tests.ranks import Results, torchrun


def test_default_run_under_torchrun_learns_the_digits_and_says_where_it_is(tmp_path: Path) -> None:
    launcher = torchrun(2, ["wandb.mode=disabled"], tmp_path)
    output, _ = launcher.communicate(timeout=200)
    assert launcher.returncode == 0, output
    found = re.search(r"folder\s+(/.*)", output.splitlines()[-1])
    assert found, output
    results = Results(Path(found[1]))
    assert results.folder.parent == tmp_path / "runs"
    assert re.fullmatch(r"digits-[0-9a-f]{8}", results.folder.name)
    assert {path.name for path in results.folder.iterdir()} >= {
        *("resolved.yaml", "environment.json", "metrics.jsonl", "events.jsonl", "summary.json", "checkpoints", "logs"),
    }
    assert results.summary["eval"]["accuracy"] >= 0.97
    assert results.summary["samples"] == 10 * 1438
    assert results.metrics("eval")[-1]["accuracy"] == results.summary["eval"]["accuracy"]
    manifest = json.loads(max(results.folder.glob("checkpoints/step_*/manifest.json")).read_text())
    assert manifest["weights_sha256"] == results.sha256
    assert re.search(r"step \d+/225  epoch [0-9.]+  loss [0-9.]+  accuracy [0-9.]+ .* samples/s  ETA ", output)
    assert "\x1b" not in output
    told = {event["event"]: event["step"] for event in results.events()}
    assert told == {"start": 0, "evaluate": 225, "checkpoint": 225, "finish": 225}

"""Records a run in Weights & Biases, in the subprocess of `process.py`, which runs this as a file."""

import csv
import html
import io
import os
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

Message = dict[str, Any]


def record(start: Message, chunks: Iterator[list[Message]]) -> None:
    """The first message has W&B's `settings`, the `config` and the `files` to attach, text by name."""
    os.environ.pop("WANDB_SERVICE", None)  # another process's, which would outlive this one
    os.environ.setdefault("WANDB_CACHE_DIR", start["settings"]["root_dir"])  # its logs go to the run folder, not home
    import wandb

    known = {key: value for key, value in start["settings"].items() if key in wandb.Settings.model_fields}
    run = wandb.init(config=start["config"], settings=wandb.Settings(**known))
    run.define_metric("step")
    run.define_metric("*", step_metric="step")
    for name, text in start["files"].items():
        path = Path(run.dir, name)
        path.write_text(text, encoding="utf-8")
        run.save(path, base_path=run.dir, policy="now")
    summary = None  # stays so when the trainer dies
    for message in chain.from_iterable(chunks):
        if "log" in message:
            run.log({"step": message["step"], **message["log"]})
        elif "show" in message:
            run.log(
                {"step": message["step"], **{chart: _media(wandb, item) for chart, item in message["show"].items()}}
            )
        elif "best" in message:
            run.summary.update(message["best"])
        else:
            summary = message["finish"]
            break
    run.summary.update(summary or {})
    run.finish(exit_code=1 if summary is None else 0)


def _media(wandb: Any, item: dict[str, str]) -> Any:
    """W&B's object for a file of `shown/`."""
    path = item["path"]
    if item["kind"] == "image":
        return wandb.Image(path, caption=item["caption"] or None)
    if item["kind"] == "audio":
        return wandb.Audio(path)
    text = Path(path).read_text(encoding="utf-8")
    if item["kind"] == "text":
        return wandb.Html(f"<pre>{html.escape(text)}</pre>", inject=False)
    columns, *rows = csv.reader(io.StringIO(text))
    return wandb.Table(columns=columns, data=rows)

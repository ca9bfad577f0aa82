"""Records a run in trackio, in the subprocess of `process.py`, which runs this as a file."""

import csv
import io
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

Message = dict[str, Any]


def record(start: Message, chunks: Iterator[list[Message]]) -> None:
    """The first message has the `project`, the run's `name` there, and the `config`."""
    import trackio

    trackio.init(start["project"], name=start["name"], config=start["config"], resume="allow")
    for message in chain.from_iterable(chunks):
        if "finish" in message:
            break
        shown = {chart: _media(trackio, item) for chart, item in message.get("show", {}).items()}
        trackio.log({**message.get("log", {}), **message.get("best", {}), **shown}, step=message["step"])
    trackio.finish()


def _media(trackio: Any, item: dict[str, str]) -> Any:
    """trackio's object for a file of `shown/`."""
    path = item["path"]
    if item["kind"] == "image":
        return trackio.Image(path, caption=item["caption"] or None)
    if item["kind"] == "audio":
        return trackio.Audio(path)
    text = Path(path).read_text(encoding="utf-8")
    if item["kind"] == "text":
        return trackio.Markdown(text)
    columns, *rows = csv.reader(io.StringIO(text))
    return trackio.Table(columns=columns, data=rows)

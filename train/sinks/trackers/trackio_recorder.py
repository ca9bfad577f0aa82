"""Records a run in trackio, in the subprocess of `process.py`, which runs this as a file."""

from collections.abc import Iterator
from itertools import chain
from typing import Any

Message = dict[str, Any]


def record(start: Message, chunks: Iterator[list[Message]]) -> None:
    """The first message has the `project`, the run's `name` there, and the `config`."""
    import trackio

    trackio.init(start["project"], name=start["name"], config=start["config"], resume="allow")
    for message in chain.from_iterable(chunks):
        if "finish" in message:
            break
        trackio.log({**message.get("log", {}), **message.get("best", {})}, step=message["step"])
    trackio.finish()

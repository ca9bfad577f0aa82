"""Records a run in MLflow, in the subprocess of `process.py`, which runs this as a file."""

import fcntl
import os
import posixpath
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

_METRICS, _PARAMS = 1000, 100  # that MLflow takes in a request
_FORBIDDEN = re.compile(r"[^\w .:/-]")  # in the name of a metric or a parameter
_OF_IMAGES = re.compile(r"[^a-zA-Z0-9_./ -]")

Message = dict[str, Any]


def record(start: Message, chunks: Iterator[list[Message]]) -> None:
    """The first message has `uri`, `experiment`, `name`, `params`, `tags`, `files` (text by name) and `id_file`, which
    keeps the id of the MLflow run.
    """
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=start["uri"])
    run = _run(client, start)
    _add_params(client, run, start["params"])
    done = {metric.key: metric.step for metric in run.data.to_proto().metrics}  # a restart repeats steps, not lines
    unsaved = [_attach(client, run.info.run_id, start["files"])]
    status = "FAILED"  # where the trainer dies
    for messages in chunks:
        _log(client, run.info.run_id, messages, done)
        unsaved += [_show(client, run.info.run_id, message) for message in messages if "show" in message]
        if messages and "finish" in messages[-1]:
            status = _finish(client, run.info.run_id, messages[-1])
            break
    client.set_terminated(run.info.run_id, status)
    for error in filter(None, unsaved):
        raise error


def _run(client: Any, start: Message) -> Any:
    """The MLflow run whose id the file has, else a new one. One process at a time looks, and writes it down."""
    file = os.open(start["id_file"], os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
    with suppress(OSError):  # a file system without locks
        fcntl.flock(file, fcntl.LOCK_EX)
    run = _known(client, os.pread(file, 100, 0).decode())
    if run is None:
        run = client.create_run(_experiment(client, start["experiment"]), tags=start["tags"], run_name=start["name"])
        os.truncate(file, 0)
        os.pwrite(file, run.info.run_id.encode(), 0)
        os.fsync(file)
    os.close(file)
    return run


def _known(client: Any, run_id: str) -> Any | None:
    """The run of an earlier start, which goes on; None where this server has none of that id."""
    from mlflow.exceptions import MlflowException

    if not run_id:
        return None
    try:
        run = client.get_run(run_id)
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return None
        raise
    client.update_run(run_id, status="RUNNING")
    return run


def _experiment(client: Any, name: str) -> str:
    """The id of the experiment, made where there is none of the name."""
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is None:
        with suppress(MlflowException):  # another run has just made it
            return str(client.create_experiment(name))
        found = client.get_experiment_by_name(name)
    return str(found.experiment_id)


def _add_params(client: Any, run: Any, params: Mapping[str, str]) -> None:
    """Those that the run has not: MLflow takes no other value for one, such as log.every after a restart."""
    from mlflow.entities import Param

    new = [Param(_name(key), value) for key, value in params.items() if _name(key) not in run.data.params]
    for first in range(0, len(new), _PARAMS):
        client.log_batch(run.info.run_id, params=new[first : first + _PARAMS])


def _attach(client: Any, run_id: str, files: Mapping[str, str]) -> Exception | None:
    """Returns the error where they cannot be kept, as where a bucket asks for other credentials: metrics can still be."""
    try:
        for name, text in files.items():
            client.log_text(run_id, text, name)
    except Exception as error:
        return error
    return None


def _show(client: Any, run_id: str, message: Message) -> Exception | None:
    """What a task shows, as the files that it is; pictures by chart and step, too, which MLflow draws."""
    from PIL import Image

    try:
        for chart, item in message["show"].items():
            client.log_artifact(run_id, item["path"], "/".join(item["path"].split("/")[-3:-1]))
            if item["kind"] == "image":
                client.log_image(run_id, Image.open(item["path"]), key=_OF_IMAGES.sub("_", chart), step=message["step"])
    except Exception as error:
        return error
    return None


def _log(client: Any, run_id: str, messages: list[Message], done: Mapping[str, int]) -> None:
    from mlflow.entities import Metric

    found = [
        Metric(_name(chart), value, round(message["time"] * 1000), message["step"])
        for message in messages
        for chart, value in {**message.get("log", {}), **message.get("best", {})}.items()
        if message["step"] > done.get(_name(chart), -1)
    ]
    for first in range(0, len(found), _METRICS):
        client.log_batch(run_id, metrics=found[first : first + _METRICS])


def _finish(client: Any, run_id: str, message: Message) -> str:
    """Add the summary, numbers as metrics and text as tags. Returns the status that the run ends with."""
    if message["finish"] is None:
        return "FAILED" if message["failed"] else "KILLED"
    for name, value in message["finish"].items():
        if isinstance(value, str):
            client.set_tag(run_id, name, value)
        else:
            client.log_metric(run_id, name, value)
    return "FINISHED"


def _name(name: str) -> str:
    """As MLflow takes it: no characters but these, and no path that leads elsewhere."""
    return posixpath.normpath(_FORBIDDEN.sub("_", name)).lstrip("./") or "_"

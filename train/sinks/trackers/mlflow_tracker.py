"""MLflow sink."""

import getpass
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar, final

from phalanx.config.limits import FINISH_S
from phalanx.config.schema import MlflowConfig
from phalanx.run_folder import names

from .best_values import BestValues
from .process_sink import ProcessSink

EXPERIMENT = "phalanx"  # where nothing names one


@final
class MLflow(ProcessSink):
    """One MLflow run for this run folder, however often the training starts: its id is kept in mlflow/run_id there.

    `config` and `files`, the text of each by name, must hold no secrets. User and password or token for a server are taken
    from MLflow's own variables, which its process inherits.
    """

    title: ClassVar[str] = "MLflow"
    recorder: ClassVar[str] = "mlflow_recorder.py"

    def __init__(
        self,
        folder: Path,
        asked: MlflowConfig,
        *,
        environ: Mapping[str, str],
        config: Mapping[str, Any],
        files: Mapping[str, str],
        best: BestValues,
    ) -> None:
        super().__init__(folder, best, FINISH_S)
        first = {
            "uri": asked.uri,
            "experiment": asked.experiment or environ.get("MLFLOW_EXPERIMENT_NAME") or EXPERIMENT,
            "name": folder.name,
            "params": dict(_flat(config, "")),
            "tags": _tags(folder, config["git_commit"]),
            "files": files,
            "id_file": str(folder.absolute() / names.MLFLOW / names.RUN_ID),
        }
        try:
            (folder / names.MLFLOW).mkdir(exist_ok=True)
            self._start(first)
        except OSError as error:
            self._give_up(str(error))


def _flat(node: Any, path: str) -> Iterator[tuple[str, str]]:
    """The leaves of the config by dotted key, as text."""
    if isinstance(node, Mapping) and node:
        for name, value in node.items():
            yield from _flat(value, f"{path}.{name}" if path else str(name))
    else:
        yield path, node if isinstance(node, str) else json.dumps(node)


def _tags(folder: Path, commit: str | None) -> dict[str, str]:
    """MLflow's own tags, which its pages show, and where the run lies."""
    user = None
    with suppress(OSError, KeyError):  # no name for this user's number, as in a container
        user = getpass.getuser()
    known = {"mlflow.user": user, "mlflow.source.git.commit": commit}
    return {
        "mlflow.source.name": "train/main.py",
        "mlflow.source.type": "LOCAL",
        "phalanx.folder": str(folder.absolute()),
        "phalanx.host": os.uname().nodename,
        **{key: value for key, value in known.items() if value is not None},
    }

"""Weights & Biases sink."""

import os
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar, final

from phalanx.config.wandb_mode import Mode
from phalanx.run_folder import names

from .best_values import BestValues
from .process_sink import ProcessSink, drawn_once

PRIVATE = {
    "program": "train/main.py",
    "silent": True,
    "console": "off",
    "x_disable_meta": True,  # the command line, among others
    "x_save_requirements": False,
    "disable_code": True,
    "disable_git": True,
}


@final
class WeightsAndBiases(ProcessSink):
    """One W&B run for this run folder, however often the training starts; its files lie in wandb/ of `root`, or `folder`.

    `config` and `files`, the text of each by name, must hold no secrets.
    """

    title: ClassVar[str] = "Weights & Biases"
    recorder: ClassVar[str] = "wandb_recorder.py"

    def __init__(
        self,
        folder: Path,
        *,
        mode: Mode,
        project: str | None,
        entity: str | None,
        group: str | None,
        tags: Sequence[str],
        name: str | None,
        root: Path | None = None,
        config: Mapping[str, object],
        files: Mapping[str, str],
        best: BestValues,
        finish_timeout_s: float,
    ) -> None:
        super().__init__(folder, best, finish_timeout_s)
        parent = (root or folder).absolute()
        self._files = parent / names.WANDB
        if mode == "disabled":
            return
        settings = {
            **PRIVATE,
            "mode": mode,
            "project": project,
            "entity": entity,
            "run_group": group,
            "run_tags": list(tags),
            "run_name": name,
            "resume": "allow",
            "root_dir": str(parent),
            "x_stats_pid": os.getpid(),
            "finish_timeout": 0.8 * finish_timeout_s,  # to end in good order before being ended
        }
        try:
            own = folder.absolute() / names.WANDB
            settings["run_id"] = drawn_once(own / names.RUN_ID, secrets.token_hex(6))
            sent = {"file": str(own / names.SENT), "id": settings["run_id"]}
            self._start({"settings": settings, "config": config, "files": files, "sent": sent})
        except OSError as error:
            self._give_up(str(error))

    def _how_to_send_the_rest(self) -> str:
        return f". To send the rest: wandb sync {self._files}/*run-*"

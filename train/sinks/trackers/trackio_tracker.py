"""trackio sink."""

import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, final

from phalanx.config.limits import FINISH_S
from phalanx.config.schema import TrackioConfig
from phalanx.run_folder import names

from .best_values import BestValues
from .process_sink import ProcessSink, drawn_once

PROJECT = "phalanx"  # where nothing names one


@final
class Trackio(ProcessSink):
    """One trackio run for this run folder, however often the training starts: its name is kept in trackio/run_id there.

    trackio finds a run by its name, so a few digits are added that make it this folder's. `config` must hold no secrets.
    """

    title: ClassVar[str] = "trackio"
    recorder: ClassVar[str] = "trackio_recorder.py"

    def __init__(self, folder: Path, asked: TrackioConfig, *, config: Mapping[str, Any], best: BestValues) -> None:
        super().__init__(folder, best, FINISH_S)
        try:
            own = folder.absolute() / names.TRACKIO
            known = drawn_once(own / names.RUN_ID, f"{folder.name}-{secrets.token_hex(2)}")
            sent = {"file": str(own / names.SENT), "id": known}
            self._start({"project": asked.project or PROJECT, "name": known, "config": config, "sent": sent})
        except OSError as error:
            self._give_up(str(error))

"""Log metrics and events to rank 0's log, with times."""

import logging
from collections.abc import Mapping
from typing import final

from phalanx.common.event_text import of_event, of_line, of_summary

from .sink import Sink

logger = logging.getLogger("phalanx")


@final
class RankLog(Sink):
    """Logs every line and event of a run of `total_steps` steps below the level that the console shows."""

    def __init__(self, total_steps: int) -> None:
        self._total_steps = total_steps

    def write(self, line: Mapping[str, object]) -> None:
        logger.info("%s", of_line(line, self._total_steps))

    def event(self, event: Mapping[str, object]) -> None:
        if text := of_event(event, self._total_steps):
            logger.info("%s", text)

    def close(self, summary: Mapping[str, object] | None) -> None:
        for text in of_summary(summary or {}):
            logger.info("%s", text)

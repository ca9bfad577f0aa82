"""One start of a run as data: what the scheduler asks for, what the watcher follows, and how it ended."""

import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from phalanx.common.files import write_json
from phalanx.run_folder import names
from phalanx.run_folder.jsonl import Evaluations

from ..local import exit_cause
from .trial import TrialRun
from .workers import RankGroup, Slot

if TYPE_CHECKING:
    from phalanx.compose.compose import Composed


@dataclass(frozen=True)
class StartRequest:
    """A run to start: the folder `run`, its command line `words` and what they compose to. `until` is the step at which it
    leaves, None for its end."""

    trial_run: TrialRun
    run: Path
    words: list[str]
    composed: "Composed"
    until: int | None


@dataclass
class Attempt:
    """A start of a run. `causes` is the folder where its ranks write why they failed."""

    trial_run: TrialRun
    run: Path
    slot: Slot
    group: RankGroup
    evaluations: Evaluations
    causes: Path
    until: int | None
    resumes: bool  # what an earlier start left
    events_bytes: int  # that an earlier start wrote down
    began: float = field(default_factory=time.monotonic)
    pruned: bool = False
    used_j: float | None = None  # by its GPUs, once it has ended, where measured

    @property
    def was_killed(self) -> bool:
        """Whether a signal ended one of its ranks."""
        return any(code < 0 for code in self.group.codes.values())

    @property
    def has_finished(self) -> bool:
        """Whether its ranks only close what they have open, as W&B does for seconds, in a slot that they leave free. A GPU
        is theirs until they have exited."""
        return not self.slot.gpus and not self.group.codes and (self.run / names.SUMMARY).exists()

    @property
    def has_begun(self) -> bool:
        """Whether its ranks have written an event: they have their GPUs then."""
        return events_bytes(self.run) > self.events_bytes


def events_bytes(run: Path) -> int:
    with suppress(FileNotFoundError):
        return (run / names.EVENTS).stat().st_size
    return 0


def exit_cause_of(attempt: Attempt) -> exit_cause.ExitCause:
    """Why a start ended. The ranks' exit codes stand where a launcher would look for them."""
    codes = [attempt.group.codes.get(pid, 0) for pid in attempt.group.pids]
    with suppress(OSError):
        write_json(
            Path(exit_cause.file_variables(attempt.causes)[exit_cause.RANKS]),
            [[rank, code, 0] for rank, code in enumerate(codes) if code],
        )
    return exit_cause.read(attempt.causes, 1 if any(codes) else 0)

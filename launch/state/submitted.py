"""The runs that were submitted from a folder of runs, and where their jobs stand in the cluster's queue."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from phalanx.exit.codes import ConfigError
from phalanx.exit.messages import say
from phalanx.run_folder import names

from ..submission.backend import Backend, JobPhase, QueuedJob, element_id
from ..submission.record import SubmissionEntry, entries

_ORDER = (JobPhase.RUNNING, JobPhase.ENDING, JobPhase.WAITING)


@dataclass(frozen=True)
class Submitted:
    """A run or a sweep that was submitted: its newest submission, and its `jobs` in the queue, of a sweep perhaps several.

    `backend` is the cluster of the newest; `known` says whether it answered. `cancelled` says that the newest job has ended
    because it was cancelled, which is asked only where no job is in the queue and the run has not begun. `log` is None
    before there is a job.
    """

    entry: SubmissionEntry
    backend: Backend
    jobs: tuple[QueuedJob, ...]
    known: bool
    log: Path | None
    cancelled: bool

    @property
    def run(self) -> Path:
        return self.entry.run

    @property
    def queued(self) -> QueuedJob | None:
        """The job that is furthest, None where all have ended."""
        return min(self.jobs, key=lambda job: _ORDER.index(job.phase), default=None)


def submitted(root: Path, backend_named: Callable[[str], Backend]) -> dict[Path, Submitted]:
    """All runs below `root` that were ever submitted, by their folders, which need not exist yet.

    A cluster is asked for what was submitted to it. Says so when one does not answer, and goes on without it.
    """
    found = entries(root)
    backends = {name: backend_named(name) for name in {entry.backend for entry in found}}
    queues = {name: _queue(backend) for name, backend in backends.items()}
    queued = {(name, job.token, job.element): job for name, queue in queues.items() for job in queue or []}
    newest: dict[Path, Submitted] = {}
    for entry in found:
        run, job = entry.run.resolve(), queued.get((entry.backend, entry.token, entry.element))
        backend = backends[entry.backend]
        jobs = newest[run].jobs if run in newest else ()
        known = queues[entry.backend] is not None
        newest[run] = Submitted(entry, backend, (*jobs, job) if job else jobs, known, log(entry, backend), False)
    return _with_ends(newest)


def cancelled_mark(entry: SubmissionEntry) -> Path | None:
    """The file that says that a person has cancelled the job, which the job's own script may write, too."""
    return None if entry.job is None else entry.folder / f"cancelled-{element_id(entry.job, entry.element)}"


def log(entry: SubmissionEntry, backend: Backend) -> Path | None:
    """What the job prints to; None before there is a job."""
    return None if entry.job is None else entry.folder / backend.log_name(element_id(entry.job, entry.element))


def _with_ends(found: dict[Path, Submitted]) -> dict[Path, Submitted]:
    """Those again that have ended because they were cancelled, as such. Each job is asked for once."""
    told: dict[tuple[str, str], Mapping[str, bool]] = {}
    result = dict(found)
    for run, each in found.items():
        job = each.entry.job
        if each.jobs or job is None:
            continue
        mark = cancelled_mark(each.entry)
        is_cancelled = mark is not None and mark.exists()
        if not is_cancelled and each.known and not (run / names.RESOLVED).exists():  # it left no run to tell
            asked = (each.entry.backend, job)
            if asked not in told:
                told[asked] = _cancelled(job, each.backend)
            is_cancelled = told[asked].get(each.entry.element, False)
        result[run] = replace(each, cancelled=is_cancelled)
    return result


def _cancelled(job: str, backend: Backend) -> Mapping[str, bool]:
    try:
        return backend.cancelled(job)
    except ConfigError:  # the cluster does not answer any more
        return {}


def _queue(backend: Backend) -> list[QueuedJob] | None:
    try:
        return backend.query()
    except ConfigError as error:
        say(f"phalanx: {backend.name} does not answer, so this is what the files tell: {error}")
        return None
